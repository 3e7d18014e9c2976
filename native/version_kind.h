#pragma once
#include <cstdint>

namespace tidemark {

/** `Version` of lib/chain/page-table.ts. */
enum VersionKind : uint8_t { kAbsent = 0, kZero = 1, kFull = 2, kDelta = 3 };

}  // namespace tidemark
