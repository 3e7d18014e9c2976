#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

namespace tidemark::uffd {

/** A mapping of this process, as far as it lies in what was asked for. */
struct Mapping {
  uint8_t* start;
  size_t length;
  /** Of the mapping: 2 MiB or more in hugetlbfs. */
  size_t pageSize;
  /** Some userfaultfd has it for missing pages. */
  bool missing;
};

/** By /proc/self/smaps: slow where much is mapped, for it counts pages. Empty where that cannot be read. */
std::vector<Mapping> mappingsOf(const uint8_t* start, size_t length);

}  // namespace tidemark::uffd
