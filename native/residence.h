#pragma once
#include <array>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <shared_mutex>
#include <unordered_map>
#include <vector>

#include "pagemap.h"
#include "userfault.h"

namespace tidemark {

/** How faults on missing pages were answered. Times in microseconds, from when the fault was read until its page was there. */
struct ResidenceStats {
  uint64_t missing = 0;
  uint64_t poisoned = 0;
  uint64_t faults = 0;
  uint64_t byFault = 0;
  uint64_t ahead = 0;
  double worst = 0;
  /** Waits by their length: eighths of a doubling, from a microsecond on. */
  std::array<uint32_t, 256> waits{};
};

/**
 * Which pages of a region are not there yet, while it is restored lazily and as long as it is open after that. Registered for MISSING and WP in one
 * userfaultfd with EVENT_REMOVE; all of it is armed. From any thread, without the memory of the region being touched.
 *
 * Whoever copies a page looks at the map under the gate, held shared; whoever reads an event changes the map before letting the gate go, held alone. So
 * what was dropped is never filled afterwards with what was stored: a copy before the event was read is EAGAIN, or is dropped with the rest.
 */
class Residence {
 public:
  /** @param notify faults wait that nobody was told of; may do no more than pass that on. Until `began` what is dropped stays missing: who makes it so drops it. */
  Residence(std::shared_ptr<Userfault> userfault, uint8_t* start, uint32_t pageCount, const Runs& missing, std::function<void()> notify);

  /**
   * Fills those of the pages (ascending) that are missing, page k from `source[k]`; returns how many. `beforeCopy` is told their indices, before anybody can see
   * them.
   */
  size_t supply(const uint8_t* source, const std::vector<uint32_t>& pages, bool byFault, const std::function<void(const std::vector<size_t>&)>& beforeCopy);
  /** Those of the pages that are missing: from now on whoever touches them gets SIGBUS, or EFAULT from a system call. */
  void poison(const Runs& pages);
  /** Nobody serves any more: poisons everything that is missing. Idempotent. */
  void end();
  /** Reads what the kernel has to say, and answers what needs nobody else. Does not wait. */
  void readEvents();

  /** Pages that were touched and are missing, each told once. */
  std::vector<uint32_t> takeFaults();
  /** What this thread has dropped is known to be: its events have been read, and who read the last one has let the gate go. */
  void awaitEvents();
  /** What is missing has been dropped. */
  void began();
  /** Has those of the pages that are missing filled, and waits until they are there or poisoned; false where none was. */
  bool fetch(const Runs& pages);
  /** Calls `body` while no page changes from missing to anything else, or the other way. */
  template <typename Body>
  auto steadily(Body&& body) {
    const auto hold = pass();
    return body();
  }
  /** Pages that are likely to be touched, in that order: `touched` begins with them. */
  void expect(std::vector<uint32_t> pages);
  /** Pages in the order in which they were first touched, those expected first; up to `most`. What was there before it was touched is not among them, unless it was expected. */
  std::vector<uint32_t> touched(size_t most) const;
  /** Those of the pages that are missing. */
  std::vector<uint32_t> stillMissing(const std::vector<uint32_t>& pages) const;
  /** Missing pages, ascending from `from` on, and from the start where there are too few; up to `most`. */
  std::vector<uint32_t> missing(uint32_t from, size_t most) const;
  /** Missing, poisoned and lost pages. */
  Runs absent() const;
  /** Poisoned and lost ones. */
  Runs poisoned() const;
  bool anyPoisoned() const { return poisonedCount_.load() > 0; }
  bool anyMissing() const { return missingCount_.load() > 0; }
  /** They were dropped, or are about to be: plain holes from now on. */
  void forget(const Runs& pages);
  ResidenceStats stats();
  const uint8_t* memory() const { return start_; }
  size_t length() const { return static_cast<size_t>(pageCount_) * kPageSize; }
  int descriptor() const { return userfault_->descriptor(); }

 private:
  using Clock = std::chrono::steady_clock;
  /** A page that is not there and not missing, and that somebody touches. */
  struct Hole {
    uint32_t number;
    bool write;
    /** `armed` was found out. */
    bool known;
    bool armed;
  };
  /** Lost: missing, when it turned out that the memory is not tracked any more. It reads as zero until a reset poisons it. */
  enum State : uint8_t { kPlain, kMissing, kFilling, kPoisoned, kLost };

  uint8_t* page(uint32_t number) const { return start_ + static_cast<size_t>(number) * kPageSize; }
  Runs pagesIn(std::initializer_list<State> states) const;
  /** Changes a page's state and the counts. */
  void set(uint32_t number, State state);
  bool claim(uint32_t number);
  /** The gate, held shared, with nobody waiting to have it alone. */
  std::shared_lock<std::shared_mutex> pass();
  std::unique_lock<std::shared_mutex> passAlone();
  void copyClaimed(const uint8_t* source, uint32_t first, uint32_t count, bool byFault);
  int poisonRun(uint32_t first, uint32_t count);
  void lose(uint32_t number);
  bool isMissing(uint32_t number) const;
  bool isZeroThere(uint32_t number) const;
  // With the gate held alone.
  void onFault(uint32_t number);
  void onRemove(uint64_t from, uint64_t to);
  int answerHole(Hole& hole);
  int mapZero(const Hole& hole);
  // Taking `mutex_`.
  void noteFilled(uint32_t first, uint32_t count, bool byFault);

  const std::shared_ptr<Userfault> userfault_;
  uint8_t* const start_;
  const uint32_t pageCount_;
  const std::function<void()> notify_;
  std::vector<std::atomic<uint8_t>> states_;
  std::atomic<uint64_t> missingCount_{0};
  std::atomic<uint64_t> poisonedCount_{0};
  std::atomic<bool> began_{false};
  std::shared_mutex gate_;
  /** Threads that want it alone: those that come to copy let them go first, or the pager might never get in. */
  std::atomic<int> wanted_{0};

  /** Guards what follows. Taken last. */
  mutable std::mutex mutex_;
  /** Pages that were missing are not any more. */
  std::condition_variable resolved_;
  std::vector<uint32_t> faults_;
  std::vector<uint32_t> expected_;
  std::vector<uint32_t> touched_;
  std::unordered_map<uint32_t, Clock::time_point> waiting_;
  uint64_t faultCount_ = 0;
  uint64_t byFault_ = 0;
  uint64_t ahead_ = 0;
  double worst_ = 0;
  std::array<uint32_t, 256> waits_{};
};

}  // namespace tidemark
