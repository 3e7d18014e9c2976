#include <napi.h>

#include "api.h"

namespace {
Napi::Object initialise(Napi::Env, Napi::Object exports) {
  tidemark::defineRegion(exports);
  tidemark::defineResidence(exports);
  tidemark::defineMemory(exports);
  tidemark::defineRing(exports);
  tidemark::defineShadow(exports);
  tidemark::definePageTable(exports);
  tidemark::defineLevelTable(exports);
  tidemark::defineStoredExtents(exports);
  tidemark::defineMisc(exports);
  tidemark::defineUserfaultfd(exports);
  tidemark::defineUserfaultfdTests(exports);
  return exports;
}
}  // namespace

// Loaded once into every thread that uses it. What outlives a call is in process-wide registries, never in the module.
NODE_API_MODULE(tidemark, initialise)
