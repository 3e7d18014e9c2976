#include "pagemap.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <memory>
#include <mutex>

#include "errors.h"
#include "uffd_abi.h"

namespace tidemark {

size_t hostPageSize() {
  static const size_t size = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  return size;
}

namespace pagemap {

namespace {
constexpr size_t kVectorLength = 4096;

struct Query {
  uint64_t flags = 0;
  uint64_t inverted = 0;
  uint64_t all = 0;
  uint64_t any = 0;
  uint64_t result = 0;
};

int descriptor() {
  static std::mutex mutex;
  static int fd = -1;
  const std::lock_guard<std::mutex> guard(mutex);
  if (fd < 0) {
    fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
    if (fd < 0) throw SystemError(errno, "open", "/proc/self/pagemap");
  }
  return fd;
}

/** Ascending and not touching, whatever the order in which they were found. */
void normalise(Runs& runs) {
  const auto before = [](const Run& a, const Run& b) { return a.first < b.first; };
  if (!std::is_sorted(runs.begin(), runs.end(), before)) std::sort(runs.begin(), runs.end(), before);
  size_t kept = 0;
  for (const Run& run : runs) {
    if (kept > 0 && run.first <= runs[kept - 1].first + runs[kept - 1].count) {
      Run& last = runs[kept - 1];
      last.count = std::max(last.first + last.count, run.first + run.count) - last.first;
    } else {
      runs[kept++] = run;
    }
  }
  runs.resize(kept);
}

/** Calls `found(run, categories)` for each region, mostly in ascending order. */
template <typename Found>
void walk(const uint8_t* start, size_t length, const Query& query, Found&& found) {
  const int fd = descriptor();
  // For a few pages a vector that they cannot fill: the kernel allocates one as large on its side.
  const size_t vectorLength = std::min(kVectorLength, length / kPageSize + 1);
  const std::unique_ptr<page_region[]> vector(new page_region[vectorLength]);
  const uint64_t base = reinterpret_cast<uintptr_t>(start);
  const uint64_t end = base + length;
  for (uint64_t from = base; from < end;) {
    pm_scan_arg arg{};
    arg.size = sizeof arg;
    arg.flags = query.flags;
    arg.start = from;
    arg.end = end;
    arg.vec = reinterpret_cast<uintptr_t>(vector.get());
    arg.vec_len = vectorLength;
    arg.category_inverted = query.inverted;
    arg.category_mask = query.all;
    arg.category_anyof_mask = query.any;
    arg.return_mask = query.result;
    const int regions = ioctl(fd, PAGEMAP_SCAN, &arg);
    if (regions < 0) throw SystemError(errno, "ioctl(PAGEMAP_SCAN)");
    for (int i = 0; i < regions; i++) {
      const page_region& region = vector[i];
      found(Run{static_cast<uint32_t>((region.start - base) / kPageSize), static_cast<uint32_t>((region.end - region.start) / kPageSize)}, region.categories);
    }
    // Fewer regions than the vector holds: the walk is complete, also where walk_end is short of the end, for it is
    // left stale. A full vector: what lies past walk_end was neither reported nor armed.
    if (static_cast<size_t>(regions) < vectorLength) break;
    if (arg.walk_end <= from) throw SystemError(EIO, "ioctl(PAGEMAP_SCAN)");
    from = arg.walk_end;
  }
}

Runs scan(const uint8_t* start, size_t length, const Query& query) {
  Runs runs;
  walk(start, length, query, [&runs](const Run& run, uint64_t) { runs.push_back(run); });
  normalise(runs);
  return runs;
}

/** Memory of this process that is swapped out, in KiB; not 0 where that cannot be told. */
uint64_t swappedOut() {
  FILE* file = fopen("/proc/self/status", "re");
  if (file == nullptr) return 1;
  uint64_t result = 1;
  char line[256];
  while (fgets(line, sizeof line, file) != nullptr) {
    unsigned long long value;
    if (sscanf(line, "VmSwap: %llu", &value) == 1) result = value;
  }
  fclose(file);
  return result;
}

/** Appends those pages of the runs that mincore(2) knows of. */
void appendResident(const uint8_t* start, const Runs& runs, Runs& result) {
  const size_t host = hostPageSize();
  const uint32_t step = static_cast<uint32_t>(host / kPageSize);
  std::vector<unsigned char> resident(1 << 18);
  for (const Run& run : runs) {
    for (uint32_t done = 0; done < run.count;) {
      const uint8_t* from = start + (static_cast<size_t>(run.first) + done) * kPageSize;
      const size_t hostPages = std::min<size_t>(resident.size(), (run.count - done) / step);
      if (mincore(const_cast<uint8_t*>(from), hostPages * host, resident.data()) != 0) throw SystemError(errno, "mincore");
      for (size_t i = 0; i < hostPages; i++) {
        if (resident[i] & 1) result.push_back({run.first + done + static_cast<uint32_t>(i) * step, step});
      }
      done += static_cast<uint32_t>(hostPages) * step;
    }
  }
}
}  // namespace

void prepare() { descriptor(); }

Runs written(const uint8_t* start, size_t length, bool rearm) {
  Query query;
  // CHECK_WPASYNC: memory that is no longer tracked is EPERM instead of being skipped in silence.
  query.flags = PM_SCAN_CHECK_WPASYNC | (rearm ? PM_SCAN_WP_MATCHING : 0);
  // These masks and no others: different ones lose zapped pages on kernels without the fixes of 2026-07.
  query.all = PAGE_IS_WRITTEN;
  query.result = PAGE_IS_WRITTEN;
  return scan(start, length, query);
}

Runs present(const uint8_t* start, size_t length, bool withZeroPage) {
  Query query;
  query.all = PAGE_IS_PRESENT | (withZeroPage ? 0 : PAGE_IS_PFNZERO);
  query.inverted = withZeroPage ? 0 : PAGE_IS_PFNZERO;
  query.result = PAGE_IS_PRESENT;
  return scan(start, length, query);
}

Runs notPresent(const uint8_t* start, size_t length) {
  Query query;
  query.all = PAGE_IS_SWAPPED;
  query.result = PAGE_IS_SWAPPED;
  return scan(start, length, query);
}

Runs huge(const uint8_t* start, size_t length) {
  Query query;
  query.all = PAGE_IS_PRESENT | PAGE_IS_HUGE;
  query.result = PAGE_IS_HUGE;
  return scan(start, length, query);
}

Runs populated(const uint8_t* start, size_t length) {
  Query query;
  query.any = PAGE_IS_PRESENT | PAGE_IS_SWAPPED;
  query.result = PAGE_IS_PRESENT | PAGE_IS_SWAPPED | PAGE_IS_PFNZERO;
  const bool swapUsedBefore = swappedOut() != 0;
  Runs runs;
  Runs absent;
  // One walk for both, so that a page which the kernel migrates meanwhile is seen in one state or the other.
  walk(start, length, query, [&](const Run& run, uint64_t categories) {
    if (categories & PAGE_IS_SWAPPED) absent.push_back(run);
    else if (!(categories & PAGE_IS_PFNZERO)) runs.push_back(run);
  });
  if (!absent.empty()) {
    // SWAPPED is any entry that is not present: a page in swap, one under migration, and the marker of an armed hole.
    // mincore(2) knows the last two apart (resident, unmapped), but a page in swap looks like a marker there. So while
    // anything is in swap all of them are taken: a zero page too many costs time, one with content too few is lost.
    Runs resident;
    if (!swapUsedBefore) appendResident(start, absent, resident);
    if (swapUsedBefore || swappedOut() != 0) {
      resident = absent;
    } else {
      // What was in swap during the walk and came back before VmSwap was read again.
      const Runs returned = present(start, length, false);
      runs.insert(runs.end(), returned.begin(), returned.end());
    }
    runs.insert(runs.end(), resident.begin(), resident.end());
  }
  normalise(runs);
  return runs;
}

}  // namespace pagemap
}  // namespace tidemark
