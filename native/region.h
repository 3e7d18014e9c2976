#pragma once
#include <memory>
#include <mutex>
#include <shared_mutex>

#include "cleanup.h"
#include "pagemap.h"
#include "residence.h"
#include "userfault.h"

namespace tidemark {

/**
 * A range of memory whose writes are tracked, with a userfaultfd of its own (so that a second one on the same memory is
 * EBUSY). Operations hold the region shared, those that change it hold it alone: `close` waits for the ones in flight.
 */
class Region {
 public:
  static uint32_t open(napi_env env, const uint8_t* start, size_t length);
  /** Throws ERR_CLOSED. */
  static std::shared_ptr<Region> find(uint32_t id);
  /** `env` may be null where it is unknown. Idempotent. */
  static void close(napi_env env, uint32_t id);
  /** Before this memory is unmapped: closes the regions in it and waits for those that another thread is closing. */
  static void closeWithin(const uint8_t* start, size_t length);

  void extend(const uint8_t* start, size_t length);
  void reset(const uint8_t* start, size_t length);
  Runs scan(const uint8_t* start, size_t length, bool rearm);
  Runs populated(const uint8_t* start, size_t length, uint32_t fromPage);
  void giveBack(const uint8_t* start, size_t length, const Runs& runs);
  /** Source page k goes to `pages[k]`. From any thread. */
  void fill(const uint8_t* source, const std::vector<uint32_t>& pages);
  void zero(const Runs& runs);
  /** Copies pages, each to its target. From any thread. */
  void read(const std::vector<uint32_t>& pages, const std::vector<uint8_t*>& targets);
  /**
   * From now on these pages are missing: dropped, and filled when they are touched or before. Everything is clean and armed when it returns. Throws ERR_SHARED for shared memory
   * that `Region.map` has not mapped, ERR_USER_MODE where faults of the kernel do not come and `userFaults` does not allow that.
   */
  std::shared_ptr<Residence> becomeLazy(const Runs& missing, bool userFaults, std::function<void()> notify);
  /** As `Residence` has them, while the region is neither closed nor changed. Throw ERR_NOT_LAZY where it has another residence by now. */
  size_t supply(const std::shared_ptr<Residence>& residence, const uint8_t* source, const std::vector<uint32_t>& pages, bool byFault, const std::function<void(const std::vector<size_t>&)>& beforeCopy);
  void poison(const std::shared_ptr<Residence>& residence, const Runs& pages);
  bool anyMissing();
  /** Waits until those of the pages that are missing are there, or poisoned; false where none was. */
  bool fetch(const Runs& pages);
  /** The pages that a lazy restore could not restore, or lost with the tracking; with `drop` they are zero then, and count as written. */
  Runs poisoned(bool drop);
  /** Calls `body` while the region can be neither closed nor changed. */
  template <typename Body>
  auto withMemory(const uint8_t* start, size_t length, const Runs& runs, Body&& body) {
    const std::shared_lock<std::shared_mutex> hold(mutex_);
    check(start, length);
    check(runs);
    return body();
  }

 private:
  Region(uint32_t id, uint8_t* start, size_t length) : id_(id), start_(start), length_(length) {}
  /** Waits for the operations in flight. */
  void shut();
  /** Gives the descriptor up. What is missing is poisoned first: it would read as zero. */
  void letGo();
  /** Unregisters, and gives it up. */
  void forgetTracking();
  /** Registers and arms a range that is not tracked yet, or leaves it as it was. */
  void track(uint8_t* start, size_t length);
  void arm(uint8_t* start, size_t length);
  /** Makes those of the lost pages that nobody has written to since unreadable. */
  void poisonLost();
  void dropZeros(const Run& run);
  void checkOpen() const;
  /** Throws ERR_MOVED unless JavaScript still sees the memory where it was registered. */
  void check(const uint8_t* start, size_t length) const;
  void check(const Runs& runs) const;
  /** Ascending, and within the region. */
  void check(const std::vector<uint32_t>& pages) const;
  void checkLazy(const std::shared_ptr<Residence>& residence) const;
  /** The whole host pages that a run is part of: the run itself where these have 4 KiB. */
  Run hostPages(const Run& run) const;
  template <typename Write>
  void overwrite(uint32_t first, uint32_t count, bool verify, Write&& write);
  /** Takes the protection off the pages (by index from `first`) that hold something else than they should. */
  template <typename Differs>
  void giveBackWhere(uint32_t first, uint32_t count, Differs&& differs);
  uint8_t* page(size_t number) const { return start_ + number * kPageSize; }
  /** Fills pages that were missing a moment ago. */
  void copyRun(const uint8_t* source, uint32_t first, uint32_t count);
  /** Arms pages that were written, and compares them. Ascending. */
  void armTogether(const uint8_t* source, const std::vector<uint32_t>& pages);
  /** Writes pages through the mapping and arms them; `verify`: nobody knows yet that there is memory. */
  void rewrite(const uint8_t* source, uint32_t first, uint32_t count, bool verify);

  const uint32_t id_;
  uint8_t* const start_;
  size_t length_;
  /** Dropping its pages makes them zero, and UFFDIO_COPY can fill them. */
  bool privateAnonymous_ = false;
  bool closed_ = false;
  /** Closed, and every registration gone, when nobody has it any more; null after a reset that failed. */
  std::shared_ptr<Userfault> userfault_;
  std::shared_ptr<Residence> residence_;
  uint64_t pagerKey_ = 0;
  /** Pages that were missing or poisoned when a reset had to begin anew, until they are dropped. */
  Runs lost_;
  Cleanup* cleanup_ = nullptr;
  std::shared_mutex mutex_;
  std::mutex arming_;
};

}  // namespace tidemark
