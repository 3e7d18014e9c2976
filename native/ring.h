#pragma once
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <vector>

namespace tidemark {

/**
 * Who may use which staging segment. Waiting is native (never JavaScript's Atomics: these can deadlock with the thread
 * that serves page faults), and whoever joined and ended, by terminate() too, ends the waiting of the others.
 */
class Ring {
 public:
  static uint32_t create(uint32_t segments);
  /** Throws ERR_CLOSED; null for a ring that existed and is closed when `closedIsFine`. */
  static std::shared_ptr<Ring> find(uint32_t id, bool closedIsFine = false);
  static void close(uint32_t id);
  static void kill(uint32_t id);

  /** `mayWait` is asked now and then; the wait ends without a segment when it says no. */
  std::vector<int32_t> acquire(uint32_t want, uint32_t stallMs, const std::function<bool()>& mayWait);
  void release(const std::vector<int32_t>& segments);
  bool starved();
  size_t free();

  explicit Ring(uint32_t id, uint32_t segments) : id_(id), free_(segments, true), freeCount_(segments) {}

 private:
  const uint32_t id_;
  std::mutex mutex_;
  std::condition_variable released_;
  std::vector<bool> free_;
  size_t freeCount_;
  /** No free segment is below this one. */
  size_t lowest_ = 0;
  uint64_t releases_ = 0;
  uint32_t waiting_ = 0;
  bool dead_ = false;
  bool closed_ = false;
};

}  // namespace tidemark
