#pragma once
#include <cstdint>
#include <vector>

#include "args.h"

namespace tidemark {

/** Where restored pages are put together: segments of staging, 256 pages each, and a place in them for each page of a job. */
struct Window {
  Span<uint8_t> staging;
  std::vector<int32_t> segments;
  std::vector<uint32_t> places;

  /** Addresses of the first `count` places. Throws where one is outside. */
  std::vector<uint8_t*> targets(size_t count) const;
};

/** From three arguments: places, staging, segments. */
Window windowOf(const Args& args, size_t index);

/** XORs page k over its target. Safe from several threads at once, also on one target. */
void combinePages(const uint8_t* source, const std::vector<uint8_t*>& targets);

}  // namespace tidemark
