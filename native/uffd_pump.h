#pragma once
#include <condition_variable>
#include <cstddef>
#include <mutex>
#include <thread>

#include "uffd_abi.h"

namespace tidemark::uffd {

/**
 * The thread that reads a descriptor. **It never allocates, and takes no lock under which anybody does**: fork(2) holds the locks of malloc(3) while it waits for its event to be
 * read, so a reader that needs memory first, or waits for somebody who does, would be a deadlock of the process. What it has read it keeps in mappings of its own.
 */
class Pump {
 public:
  struct Messages {
    const uffd_msg* data;
    size_t count;
  };

  /** The descriptor must outlive it. Throws SystemError. */
  explicit Pump(int fd);
  Pump(const Pump&) = delete;
  Pump& operator=(const Pump&) = delete;
  ~Pump();

  /** Waits for messages; they are valid until the next call. None: reading has ended, and all were given. For one thread. */
  Messages next();
  /** Waits for the thread. What was read can still be had. Idempotent. */
  void stop();

 private:
  struct Buffer {
    uffd_msg* data = nullptr;
    size_t capacity = 0;
    size_t count = 0;
  };
  static bool grow(Buffer& buffer);
  void run();
  bool readSome();
  void push(const uffd_msg* messages, size_t count);

  const int fd_;
  int stop_ = -1;
  std::mutex mutex_;
  std::condition_variable ready_;
  Buffer filling_;
  Buffer given_;
  bool ended_ = false;
  std::thread thread_;
};

}  // namespace tidemark::uffd
