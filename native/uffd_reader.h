#pragma once
#include <node_api.h>

#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "uffd_pump.h"
#include "uffd_ranges.h"

namespace tidemark::uffd {

/** A message of the kernel without addresses. Where it lies in none of the ranges, `place.range` is 0. */
struct Event {
  uint8_t type;
  /** UFFD_PAGEFAULT_FLAG_* */
  uint64_t flags = 0;
  uint32_t thread = 0;
  Piece place{};
  /** Of a fault: as the kernel gave it, from the start of the range; without EXACT_ADDRESS the start of the page. */
  uint64_t exactOffset = 0;
  /** Where a range was moved to. */
  Piece to{};
  /** Of a fork: the number of the child's object, 0 where its descriptor was closed. */
  uint32_t child = 0;
};

/**
 * Makes events of what the pump reads, on a thread of its own, and queues them. Reading goes on always: whoever forks, unmaps, drops or moves registered memory
 * is blocked until its event is read, and that may be the very thread that takes events from here. So the queue has no bound; it
 * holds at most one fault for each thread of the process, for that waits, and one event for each system call of the other kinds.
 */
class Reader {
 public:
  /** What to do with the descriptor of a fork; gives the number for the event. */
  using Adopt = std::function<uint32_t(int fd)>;
  /** Starts the threads; throws SystemError. The descriptor must outlive the reader. */
  Reader(int fd, std::shared_ptr<Ranges> ranges, Adopt adopt);
  ~Reader();
  /** Waits for the threads. Idempotent. */
  void stop();

  /** Called without arguments when there is something to take; released at the end of the reader. */
  void notify(napi_threadsafe_function function);
  void keepAlive(napi_env env, bool on);
  std::vector<Event> take();

 private:
  void run();
  void translate(const uffd_msg& message, std::vector<Event>& events) const;
  void push(std::vector<Event> events);
  void announce();

  const std::shared_ptr<Ranges> ranges_;
  const Adopt adopt_;
  Pump pump_;
  std::mutex mutex_;
  std::vector<Event> queue_;
  napi_threadsafe_function function_ = nullptr;
  bool announced_ = false;
  std::thread thread_;
};

}  // namespace tidemark::uffd
