#pragma once
#include <node_api.h>

#include <memory>
#include <mutex>
#include <shared_mutex>
#include <vector>

#include "args.h"
#include "cleanup.h"
#include "uffd_reader.h"
#include "uffd_verbs.h"

namespace tidemark::uffd {

struct Options {
  /** /dev/userfaultfd, else userfaultfd(2). */
  bool device;
  bool userModeOnly;
  uint64_t features;
  /** The descriptors of forks become objects; else they are closed at once. */
  bool keepForks;
  /** What is still missing is poisoned before the descriptor is closed. */
  bool poisonAtClose;
};

/** What the kernel answered to UFFDIO_API. */
struct Opened {
  uint32_t id;
  uint64_t features;
  uint64_t ioctls;
};

/** Which bytes of which range, and where JavaScript sees the range now. */
struct Place {
  uint32_t range;
  Span<uint8_t> view;
  uint64_t offset;
  uint64_t length;
};

/**
 * A userfaultfd with what was registered with it. The kernel does what it is told with any range that some userfaultfd has, so it is here
 * that a call is held to the ranges of its own object, at the address where JavaScript still has the memory.
 */
class Object {
 public:
  Object(uint32_t id, int fd, const Options& options);
  ~Object();
  /** Throws SystemError. Closed by itself when the environment ends. */
  static Opened open(napi_env env, const Options& options);
  /** Features and ioctls of the kernel, by a throw-away descriptor. */
  static Opened offered(bool device, bool userModeOnly);
  /** Throws ERR_CLOSED. */
  static std::shared_ptr<Object> find(uint32_t id);
  /** `env` may be null where it is unknown. Idempotent; waits for operations of other threads. */
  static void close(napi_env env, uint32_t id);
  /** A fork's object, which the reader has made, becomes the environment's. */
  static void own(napi_env env, uint32_t id);

  Range enroll(const Span<uint8_t>& view, uint64_t mode);
  void withdraw(uint32_t range, const Span<uint8_t>& view);
  /** The memory is gone: events about it name no range any more, and the kernel is not asked. */
  void forget(uint32_t range) { ranges_->remove(range); }
  std::vector<Range> ranges() const { return ranges_->all(); }
  /** Calls `body(fd, address)` while nobody can close the object. */
  template <typename Body>
  auto at(const Place& place, Body&& body) {
    const std::shared_lock<std::shared_mutex> hold(mutex_);
    uint8_t* const address = check(place);
    return body(fd_, address);
  }

  /** From here on `function` is called when there is something to take. */
  void listen(napi_env env, napi_threadsafe_function function);
  void keepAlive(napi_env env, bool on);
  std::vector<Event> take();

 private:
  Range checkView(uint32_t range, const Span<uint8_t>& view) const;
  uint8_t* check(const Place& place) const;
  void shut();
  /** Threads that wait get SIGBUS or EFAULT instead of zeros. */
  void poisonMissing() const;
  uint32_t adopt(int fd);
  /** No fork is under way that this descriptor will get an event of, and none will be. */
  void endForks() const;

  const uint32_t id_;
  const Options options_;
  int fd_;
  /** The memory is another process's: there is no view to compare addresses with. */
  bool foreign_ = false;
  const std::shared_ptr<Ranges> ranges_ = std::make_shared<Ranges>();
  std::unique_ptr<Reader> reader_;
  napi_env owner_ = nullptr;
  Cleanup* cleanup_ = nullptr;
  Cleanup* readerCleanup_ = nullptr;
  std::shared_mutex mutex_;
  std::mutex readerMutex_;
};

}  // namespace tidemark::uffd
