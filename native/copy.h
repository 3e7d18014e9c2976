#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

#include "pagemap.h"

namespace tidemark {

/** As in lib/kernel/addon.ts. */
constexpr size_t kSegmentPages = 256;
constexpr size_t kSegmentHeadroom = 4096;
constexpr size_t kSegmentStride = kSegmentHeadroom + kSegmentPages * kPageSize;

/** Whether a page of 4 KiB holds nothing but zeros. */
bool isZero(const uint8_t* page);

struct CopyTarget {
  uint8_t* staging;
  std::vector<int32_t> segments;
  uint32_t* pages;
  uint32_t* counts;
};

/**
 * Copies the dirty pages of `runs` from number `skip` on into the target's segments, leaving out those that are zero;
 * returns how many were consumed. Everything has been checked before.
 */
uint64_t copyPages(const uint8_t* memory, const Runs& runs, uint64_t skip, const CopyTarget& target, size_t threads);

}  // namespace tidemark
