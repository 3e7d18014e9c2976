#pragma once
// What a way of taking snapshots is to the program that measures it.
#include <cstdint>
#include <vector>

#include "epoch_file.h"
#include "support.h"

/** The memory that is written to. */
struct Memory {
  uint8_t* start;
  size_t pages;
  size_t bytes() const { return pages * kPage; }
};

struct Epoch {
  double blockedMs, durableMs;
  uint64_t storedBytes, pages;
};

class Peer {
 public:
  Peer(Memory memory, size_t threads, EpochFile& file) : memory_(memory), threads_(threads), file_(file) {}
  virtual ~Peer() = default;

  /** Takes an epoch; the first one holds every page. */
  virtual void checkpoint() {
    const auto start = Clock::now();
    chunks_.clear();
    capture(epochs.empty());
    const double blockedMs = since(start);
    const uint64_t stored = file_.append(chunks_);
    const double durableMs = since(start);
    epochs.push_back({held_ ? durableMs : blockedMs, durableMs, stored, pagesOf(chunks_)});
  }

  /** The writes after a checkpoint are done: nothing of it may be in the way of the next one. */
  virtual void settle() {}

  /** The most that other processes had of memory that this one has not. */
  virtual uint64_t bytesElsewhere() const { return 0; }

  /** Faults for which more than their page had to be given up. */
  virtual uint64_t enlarged() const { return 0; }

  std::vector<Epoch> epochs;

 protected:
  const Memory memory_;
  const size_t threads_;
  EpochFile& file_;
  std::vector<Chunk> chunks_;
  /** What is stored is the memory itself: its writer waits until that is done. */
  bool held_ = false;

  /** What the caller is blocked for. Says in `chunks_` what is to be stored. */
  virtual void capture(bool first) = 0;

  /** Everything, from here. */
  void addAll(const uint8_t* pages) {
    for (size_t first = 0; first < memory_.pages; first += kRecordPages) {
      const size_t count = std::min(kRecordPages, memory_.pages - first);
      chunks_.push_back({pages + first * kPage, nullptr, false, static_cast<uint32_t>(first), static_cast<uint32_t>(count)});
    }
  }

  /** The pages that have these numbers; `pages` has them packed, or is where all are (scattered). */
  void addListed(const uint8_t* pages, const std::vector<uint32_t>& numbers, bool scattered) {
    for (size_t k = 0; k < numbers.size(); k += kRecordPages) {
      const size_t count = std::min(kRecordPages, numbers.size() - k);
      chunks_.push_back({scattered ? pages : pages + k * kPage, &numbers[k], scattered, 0, static_cast<uint32_t>(count)});
    }
  }

  /** A part of 0 to `total` for each thread. */
  template <typename Task>
  void share(size_t total, Task task) const {
    runParallel(threads_, threads_, [&](size_t thread) { task(thread, total * thread / threads_, total * (thread + 1) / threads_); });
  }

  static uint64_t pagesOf(const std::vector<Chunk>& chunks) {
    uint64_t pages = 0;
    for (const Chunk& chunk : chunks) pages += chunk.count;
    return pages;
  }
};

/** The same writes, and nothing else. */
class NoPeer : public Peer {
 public:
  using Peer::Peer;
  void checkpoint() override {}

 protected:
  void capture(bool) override {}
};
