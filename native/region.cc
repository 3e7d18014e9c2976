#include "region.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <map>
#include <mutex>

#include "errors.h"
#include "memory.h"
#include "pager.h"
#include "probe.h"
#include "shared_file.h"

namespace tidemark {

namespace {
constexpr size_t kHugePageSize = 2 << 20;
/** A page number is 32 bits. */
constexpr uint64_t kMaxLength = (1ull << 32) * kPageSize - kHugePageSize;
constexpr int kBusyRetries = 50;

struct Registry {
  std::mutex mutex;
  uint32_t nextId = 1;
  /** Those that may be used. */
  std::map<uint32_t, std::shared_ptr<Region>> regions;

  /** What is tracked, until the descriptor is closed; a copy of the bounds, so that no region need be locked. */
  struct Range {
    std::shared_ptr<Region> region;
    const uint8_t* start;
    const uint8_t* end;
  };
  std::map<uint32_t, Range> ranges;

  std::vector<std::pair<uint32_t, std::shared_ptr<Region>>> overlapping(uint32_t except, const uint8_t* start, size_t length) {
    const std::lock_guard<std::mutex> guard(mutex);
    std::vector<std::pair<uint32_t, std::shared_ptr<Region>>> found;
    for (const auto& [id, range] : ranges) {
      if (id != except && start < range.end && range.start < start + length) found.emplace_back(id, range.region);
    }
    return found;
  }
};

// Never destroyed: threads may still be at work when the process runs its static destructors.
Registry& registry() {
  static Registry& instance = *new Registry();
  return instance;
}

void checkAligned(const uint8_t* start, size_t length) {
  const size_t host = hostPageSize();
  if (length == 0 || reinterpret_cast<uintptr_t>(start) % host != 0 || length % host != 0 || length % kPageSize != 0) {
    throw CodedError("ERR_UNALIGNED", "memory to track must start at a page boundary of " + std::to_string(host) + " bytes and consist of whole pages");
  }
  if (length > kMaxLength) throw ArgumentError(ArgumentError::kRange, "memory to track may be 16 TiB at most");
}
}  // namespace

uint32_t Region::open(napi_env env, const uint8_t* start, size_t length) {
  checkAligned(start, length);
  pagemap::prepare();
  prepareChecks();
  uint32_t id;
  {
    const std::lock_guard<std::mutex> guard(registry().mutex);
    id = registry().nextId++;
  }
  const std::shared_ptr<Region> region(new Region(id, const_cast<uint8_t*>(start), length));
  // Before it is armed: what an earlier region of this memory could not restore is no hole, and would be stored as one.
  region->lost_ = unreadable(start, length);
  region->userfault_ = std::make_shared<Userfault>(Userfault::forTracking());
  region->track(region->start_, length);
  region->cleanup_ = Cleanup::add(env, [](uint32_t ended) { close(nullptr, ended); }, id);
  const std::lock_guard<std::mutex> guard(registry().mutex);
  registry().regions.emplace(id, region);
  registry().ranges.emplace(id, Registry::Range{region, start, start + length});
  return id;
}

std::shared_ptr<Region> Region::find(uint32_t id) {
  const std::lock_guard<std::mutex> guard(registry().mutex);
  const auto found = registry().regions.find(id);
  if (found == registry().regions.end()) throw closedError("region", id);
  return found->second;
}

void Region::close(napi_env env, uint32_t id) {
  std::shared_ptr<Region> region;
  {
    const std::lock_guard<std::mutex> guard(registry().mutex);
    const auto found = registry().regions.find(id);
    if (found == registry().regions.end()) return;
    region = found->second;
    registry().regions.erase(found);
    if (env != nullptr) Cleanup::remove(env, region->cleanup_);
  }
  region->shut();
  const std::lock_guard<std::mutex> guard(registry().mutex);
  registry().ranges.erase(id);
}

void Region::closeWithin(const uint8_t* start, size_t length) {
  for (const auto& [id, region] : registry().overlapping(0, start, length)) {
    close(nullptr, id);
    region->shut();
  }
}

void Region::shut() {
  const std::unique_lock<std::shared_mutex> hold(mutex_);
  closed_ = true;
  letGo();
}

void Region::letGo() {
  if (residence_ != nullptr) {
    residence_->end();
    pager::remove(pagerKey_);
    residence_ = nullptr;
  }
  userfault_ = nullptr;
}

void Region::track(uint8_t* start, size_t length) {
  uint64_t ioctls = 0;
  for (int attempt = 0;; attempt++) {
    try {
      ioctls = userfault_->registerForWrites(start, length);
      break;
    } catch (const SystemError& error) {
      // A child between fork and exec holds a copy of every descriptor, one that has just been closed here included, and
      // its registration lives as long. If none of our regions has this memory, that may be who is in the way.
      if (error.number != EBUSY || attempt >= kBusyRetries || !registry().overlapping(id_, start, length).empty()) throw;
      usleep(2000);
    }
  }
  try {
    // Only hugetlb ranges refuse UFFDIO_ZEROPAGE. Scanning one over a hole can hang the thread unkillably (before e92d92bbafb2).
    if ((ioctls & (1ull << _UFFDIO_ZEROPAGE)) == 0) throw SystemError(EOPNOTSUPP, "ioctl(UFFDIO_REGISTER)");
    privateAnonymous_ = isPrivateAnonymous(start_, static_cast<size_t>(start + length - start_));
    arm(start, length);
  } catch (...) {
    try {
      userfault_->unregister(start, length);
    } catch (const SystemError&) {
      // The first error is the one to report; whoever opened the region closes the descriptor now.
    }
    throw;
  }
}

void Region::arm(uint8_t* start, size_t length) {
  if (!reportsDroppedHugePages()) {
    // This kernel forgets huge pages that are dropped whole, so there must be none: no new ones, and those that exist are
    // split by arming a part of them.
    madvise(start, length, MADV_NOHUGEPAGE);
    const uintptr_t end = reinterpret_cast<uintptr_t>(start) + length;
    const uintptr_t first = (reinterpret_cast<uintptr_t>(start) + kHugePageSize - 1) & ~(kHugePageSize - 1);
    for (uintptr_t at = first; at + kHugePageSize <= end; at += kHugePageSize) {
      userfault_->protect(reinterpret_cast<uint8_t*>(at), hostPageSize(), true);
    }
  }
  // Holes, too: one that was never armed reads as written.
  userfault_->protect(start, length, true);
}

void Region::checkOpen() const {
  if (closed_) throw closedError("region", id_);
  // After a reset that failed half-way.
  if (userfault_ == nullptr) throw SystemError(EPERM, "userfaultfd");
}

void Region::check(const uint8_t* start, size_t length) const {
  checkOpen();
  if (start != start_ || length < length_) throw CodedError("ERR_MOVED", "the memory of region " + std::to_string(id_) + " is not where it was: its buffer was detached, transferred or shrunk");
}

void Region::check(const Runs& runs) const {
  if (!runs.empty() && static_cast<uint64_t>(runs.back().first) + runs.back().count > length_ / kPageSize) {
    throw ArgumentError(ArgumentError::kRange, "runs must lie within the region");
  }
}

void Region::check(const std::vector<uint32_t>& pages) const {
  for (size_t k = 1; k < pages.size(); k++) {
    if (pages[k] <= pages[k - 1]) throw ArgumentError(ArgumentError::kRange, "pages must be ascending");
  }
  if (!pages.empty() && pages.back() >= length_ / kPageSize) throw ArgumentError(ArgumentError::kRange, "pages must lie within the region");
}

void Region::extend(const uint8_t* start, size_t length) {
  const std::unique_lock<std::shared_mutex> hold(mutex_);
  check(start, length);
  checkAligned(start, length);
  if (length == length_) return;
  track(start_ + length_, length - length_);
  length_ = length;
  const std::lock_guard<std::mutex> guard(registry().mutex);
  const auto range = registry().ranges.find(id_);
  if (range != registry().ranges.end()) range->second.end = start_ + length;
}

namespace {
/** Both ascending. */
Runs without(const Runs& runs, const Runs& others) {
  Runs result;
  size_t next = 0;
  for (const Run& run : runs) {
    uint32_t at = run.first;
    const uint32_t end = run.first + run.count;
    while (next < others.size() && others[next].first + others[next].count <= at) next++;
    for (size_t k = next; k < others.size() && others[k].first < end; k++) {
      if (others[k].first > at) result.push_back({at, others[k].first - at});
      at = std::max(at, others[k].first + others[k].count);
    }
    if (at < end) result.push_back({at, end - at});
  }
  return result;
}

/** Both ascending. */
Runs together(const Runs& runs, const Runs& others) {
  Runs all = runs;
  all.insert(all.end(), others.begin(), others.end());
  std::sort(all.begin(), all.end(), [](const Run& a, const Run& b) { return a.first < b.first; });
  Runs result;
  for (const Run& run : all) {
    if (result.empty() || result.back().first + result.back().count < run.first) {
      result.push_back(run);
    } else {
      const uint32_t end = std::max(result.back().first + result.back().count, run.first + run.count);
      result.back().count = end - result.back().first;
    }
  }
  return result;
}
}  // namespace

Runs Region::scan(const uint8_t* start, size_t length, bool rearm) {
  const std::shared_lock<std::shared_mutex> hold(mutex_);
  check(start, length);
  checkReadable(start_, length_);
  const auto look = [&] { return pagemap::written(start_, length_, rearm); };
  if (residence_ == nullptr) return lost_.empty() ? look() : without(look(), lost_);
  return residence_->steadily([&] {
    const Runs runs = look();
    // Nobody can read what is poisoned.
    return residence_->anyPoisoned() ? without(runs, residence_->poisoned()) : runs;
  });
}

Runs Region::populated(const uint8_t* start, size_t length, uint32_t fromPage) {
  const std::shared_lock<std::shared_mutex> hold(mutex_);
  check(start, length);
  const uint32_t pages = static_cast<uint32_t>(length_ / kPageSize);
  if (fromPage > pages) throw ArgumentError(ArgumentError::kRange, "fromPage must lie within the region");
  // Whole host pages, so that the scan gets an aligned address.
  const uint32_t first = fromPage - fromPage % static_cast<uint32_t>(hostPageSize() / kPageSize);
  if (first == pages) return {};
  // Shared memory and files have content that no page table of ours knows of: of a file that was mapped here its file system is asked,
  // of what somebody else has mapped every page may have some.
  const std::shared_ptr<SharedFile> file = privateAnonymous_ ? nullptr : SharedFile::find(start_, length_);
  if (!privateAnonymous_ && file == nullptr) return {{fromPage, pages - fromPage}};
  const size_t rest = length_ - first * kPageSize;
  Runs runs = file == nullptr ? pagemap::populated(page(first), rest) : file->populated(page(first), rest);
  for (Run& run : runs) run.first += first;
  if (residence_ != nullptr && residence_->anyMissing()) runs = together(runs, without(residence_->absent(), {{0, first}}));
  if (residence_ != nullptr && residence_->anyPoisoned()) runs = without(runs, residence_->poisoned());
  if (!lost_.empty()) runs = without(runs, lost_);
  if (!runs.empty() && runs.front().first < fromPage) {
    const uint32_t end = runs.front().first + runs.front().count;
    runs.front() = {fromPage, end - fromPage};
  }
  return runs;
}

void Region::giveBack(const uint8_t* start, size_t length, const Runs& runs) {
  const std::shared_lock<std::shared_mutex> hold(mutex_);
  check(start, length);
  check(runs);
  for (const Run& run : runs) {
    const Run whole = hostPages(run);
    userfault_->protect(page(whole.first), whole.count * kPageSize, false);
  }
}

Run Region::hostPages(const Run& run) const {
  const uint32_t unit = static_cast<uint32_t>(hostPageSize() / kPageSize);
  const uint32_t first = run.first - run.first % unit;
  // The region consists of whole host pages, so this stays within it.
  const uint32_t end = (run.first + run.count + unit - 1) / unit * unit;
  return {first, end - first};
}

}  // namespace tidemark
