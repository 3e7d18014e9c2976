#pragma once
#include <napi.h>

namespace tidemark {

// Each adds its verbs of lib/kernel/addon.ts, which says what they do.
void defineRegion(Napi::Object exports);
void defineResidence(Napi::Object exports);
void defineMemory(Napi::Object exports);
void defineRing(Napi::Object exports);
void defineShadow(Napi::Object exports);
void definePageTable(Napi::Object exports);
void defineLevelTable(Napi::Object exports);
void defineStoredExtents(Napi::Object exports);
void defineMisc(Napi::Object exports);
void defineUserfaultfd(Napi::Object exports);
void defineUserfaultfdTests(Napi::Object exports);

}  // namespace tidemark
