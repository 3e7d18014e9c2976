#pragma once
#include <napi.h>

namespace tidemark {

/** `RawCapabilities` of lib/kernel/addon.ts, found out with throw-away descriptors and mappings. */
Napi::Object probe(Napi::Env env);

/** Whether this kernel reports a huge page that was dropped whole; not where that could not be tried. Tested once. */
bool reportsDroppedHugePages();

}  // namespace tidemark
