#include "userfault.h"

#include <sched.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>

#include "errors.h"

namespace tidemark {

namespace {
constexpr uint64_t kTrackingFeatures = UFFD_FEATURE_PAGEFAULT_FLAG_WP | UFFD_FEATURE_WP_UNPOPULATED | UFFD_FEATURE_WP_ASYNC;
constexpr uint64_t kServingFeatures = UFFD_FEATURE_EVENT_REMOVE | UFFD_FEATURE_POISON;

uffdio_range rangeOf(const uint8_t* start, size_t length) {
  uffdio_range range{};
  range.start = reinterpret_cast<uintptr_t>(start);
  range.len = length;
  return range;
}
}  // namespace

Userfault::~Userfault() {
  if (fd_ >= 0) close(fd_);
}

Userfault Userfault::obtain(Attempts& attempts) {
  attempts = Attempts();
  // The device first: its file permission decides, also where seccomp forbids the system call.
  const int device = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);
  if (device >= 0) {
    const int fd = ioctl(device, USERFAULTFD_IOC_NEW, O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) attempts.deviceError = errno;
    close(device);
    if (fd >= 0) {
      attempts.way = Way::kDevice;
      return Userfault(fd);
    }
  } else {
    attempts.deviceError = errno;
  }
  int fd = static_cast<int>(syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK));
  if (fd >= 0) {
    attempts.way = Way::kSyscall;
    return Userfault(fd);
  }
  attempts.syscallError = errno;
  // Never needs a privilege. Kernel-mode stores into armed pages are tracked with it, too: WP_ASYNC raises no fault.
  fd = static_cast<int>(syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | UFFD_USER_MODE_ONLY));
  if (fd >= 0) {
    attempts.way = Way::kSyscallUserMode;
    return Userfault(fd);
  }
  attempts.userModeError = errno;
  return Userfault();
}

uint64_t Userfault::enable(uint64_t features) {
  uffdio_api api{};
  api.api = UFFD_API;
  api.features = features;
  if (ioctl(fd_, UFFDIO_API, &api) != 0) throw SystemError(errno, "ioctl(UFFDIO_API)");
  return api.features;
}

uint64_t Userfault::supportedFeatures() {
  static std::atomic<uint64_t> known{0};
  uint64_t features = known.load();
  if (features != 0) return features;
  Attempts attempts;
  Userfault throwAway = obtain(attempts);
  if (!throwAway.valid()) throw SystemError(attempts.userModeError, "userfaultfd");
  features = throwAway.enable(0);
  known.store(features);
  return features;
}

namespace {
Userfault withFeatures(uint64_t features, Attempts& attempts) {
  if ((Userfault::supportedFeatures() & features) != features) throw SystemError(EOPNOTSUPP, "ioctl(UFFDIO_API)");
  Userfault result = Userfault::obtain(attempts);
  if (!result.valid()) throw SystemError(attempts.userModeError, "userfaultfd");
  if ((result.enable(features) & features) != features) throw SystemError(EOPNOTSUPP, "ioctl(UFFDIO_API)");
  return result;
}
}  // namespace

Userfault Userfault::forTracking() {
  Attempts attempts;
  return withFeatures(kTrackingFeatures, attempts);
}

Userfault Userfault::forServing(bool& kernelFaults) {
  Attempts attempts;
  Userfault result = withFeatures(kTrackingFeatures | kServingFeatures, attempts);
  kernelFaults = attempts.way != Way::kSyscallUserMode;
  return result;
}

uint64_t Userfault::registerRange(const uint8_t* start, size_t length, uint64_t mode) {
  uffdio_register request{};
  request.range = rangeOf(start, length);
  request.mode = mode;
  if (ioctl(fd_, UFFDIO_REGISTER, &request) != 0) throw SystemError(errno, "ioctl(UFFDIO_REGISTER)");
  return request.ioctls;
}

uint64_t Userfault::registerForWrites(const uint8_t* start, size_t length) {
  return registerRange(start, length, UFFDIO_REGISTER_MODE_WP);
}

uint64_t Userfault::registerForServing(const uint8_t* start, size_t length) {
  return registerRange(start, length, UFFDIO_REGISTER_MODE_WP | UFFDIO_REGISTER_MODE_MISSING);
}

void Userfault::unregister(const uint8_t* start, size_t length) {
  uffdio_range range = rangeOf(start, length);
  if (ioctl(fd_, UFFDIO_UNREGISTER, &range) != 0) throw SystemError(errno, "ioctl(UFFDIO_UNREGISTER)");
}

void Userfault::protect(const uint8_t* start, size_t length, bool on) {
  // EAGAIN: the mappings of the process are changing; the whole range may simply be done again.
  for (int error = tryProtect(start, length, on); error != 0; error = tryProtect(start, length, on)) {
    if (error != EAGAIN && error != EINTR) throw SystemError(error, "ioctl(UFFDIO_WRITEPROTECT)");
    sched_yield();
  }
}

int Userfault::tryProtect(const uint8_t* start, size_t length, bool on) {
  uffdio_writeprotect request{};
  request.range = rangeOf(start, length);
  request.mode = on ? UFFDIO_WRITEPROTECT_MODE_WP : 0;
  return ioctl(fd_, UFFDIO_WRITEPROTECT, &request) == 0 ? 0 : errno;
}

size_t Userfault::copy(uint8_t* target, const uint8_t* source, size_t length, bool arm, int& error) {
  size_t done = 0;
  for (;;) {
    done += tryCopy(target + done, source + done, length - done, arm, error);
    if (done == length || (error != EAGAIN && error != EINTR)) return done;
    sched_yield();
  }
}

size_t Userfault::tryCopy(uint8_t* target, const uint8_t* source, size_t length, bool arm, int& error) {
  size_t done = 0;
  error = 0;
  while (done < length) {
    uffdio_copy request{};
    request.dst = reinterpret_cast<uintptr_t>(target + done);
    request.src = reinterpret_cast<uintptr_t>(source + done);
    request.len = length - done;
    request.mode = arm ? UFFDIO_COPY_MODE_WP : 0;
    if (ioctl(fd_, UFFDIO_COPY, &request) == 0) return length;
    error = errno;
    // A short copy says EAGAIN and how much was done; the next try finds out what stopped it.
    if (request.copy <= 0) return done;
    done += static_cast<size_t>(request.copy);
  }
  error = 0;
  return done;
}

int Userfault::tryPoison(const uint8_t* start, size_t length) {
  for (size_t done = 0; done < length;) {
    uffdio_poison request{};
    request.range = rangeOf(start + done, length - done);
    if (ioctl(fd_, UFFDIO_POISON, &request) == 0) return 0;
    if (request.updated <= 0) return errno;
    done += static_cast<size_t>(request.updated);
  }
  return 0;
}

void Userfault::wake(const uint8_t* start, size_t length) {
  uffdio_range range = rangeOf(start, length);
  // It fails only for memory that is not there any more, where nobody waits.
  ioctl(fd_, UFFDIO_WAKE, &range);
}

size_t Userfault::read(uffd_msg* messages, size_t most) {
  const ssize_t got = ::read(fd_, messages, most * sizeof *messages);
  return got <= 0 ? 0 : static_cast<size_t>(got) / sizeof *messages;
}

}  // namespace tidemark
