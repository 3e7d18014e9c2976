#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

namespace tidemark {

/** The store's page, whatever the host's. */
constexpr size_t kPageSize = 4096;

size_t hostPageSize();

/** Consecutive pages of 4 KiB, numbered from the start of the region. */
struct Run {
  uint32_t first;
  uint32_t count;
};
using Runs = std::vector<Run>;

/** A page behind all that are there. */
inline void append(Runs& runs, uint32_t page) {
  if (!runs.empty() && runs.back().first + runs.back().count == page) runs.back().count++;
  else runs.push_back({page, 1});
}

namespace pagemap {

/** Opens /proc/self/pagemap if it is not open yet. It stays open: after setuid(2) it would be refused. */
void prepare();

/** The pages written since they were armed; with `rearm` they are armed in the same step. After an error the set is unknown. */
Runs written(const uint8_t* start, size_t length, bool rearm);
/** Present pages, the shared zero page left out or not. */
Runs present(const uint8_t* start, size_t length, bool withZeroPage);
/** Private anonymous memory only: pages that may have content, which is present, swapped out or being migrated. */
Runs populated(const uint8_t* start, size_t length);
/** Private memory that nobody has armed: pages in swap, and those that were poisoned. */
Runs notPresent(const uint8_t* start, size_t length);
/** Present as part of a huge page. */
Runs huge(const uint8_t* start, size_t length);

}  // namespace pagemap
}  // namespace tidemark
