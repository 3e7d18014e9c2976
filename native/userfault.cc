#include "userfault.h"

#include <sched.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>

#include "errors.h"

namespace tidemark {

namespace {
constexpr uint64_t kTrackingFeatures = UFFD_FEATURE_PAGEFAULT_FLAG_WP | UFFD_FEATURE_WP_UNPOPULATED | UFFD_FEATURE_WP_ASYNC;

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

Userfault Userfault::forTracking() {
  if ((supportedFeatures() & kTrackingFeatures) != kTrackingFeatures) throw SystemError(EOPNOTSUPP, "ioctl(UFFDIO_API)");
  Attempts attempts;
  Userfault result = obtain(attempts);
  if (!result.valid()) throw SystemError(attempts.userModeError, "userfaultfd");
  if ((result.enable(kTrackingFeatures) & kTrackingFeatures) != kTrackingFeatures) throw SystemError(EOPNOTSUPP, "ioctl(UFFDIO_API)");
  return result;
}

uint64_t Userfault::registerForWrites(const uint8_t* start, size_t length) {
  uffdio_register request{};
  request.range = rangeOf(start, length);
  request.mode = UFFDIO_REGISTER_MODE_WP;
  if (ioctl(fd_, UFFDIO_REGISTER, &request) != 0) throw SystemError(errno, "ioctl(UFFDIO_REGISTER)");
  return request.ioctls;
}

void Userfault::unregister(const uint8_t* start, size_t length) {
  uffdio_range range = rangeOf(start, length);
  if (ioctl(fd_, UFFDIO_UNREGISTER, &range) != 0) throw SystemError(errno, "ioctl(UFFDIO_UNREGISTER)");
}

void Userfault::protect(const uint8_t* start, size_t length, bool on) {
  uffdio_writeprotect request{};
  request.range = rangeOf(start, length);
  request.mode = on ? UFFDIO_WRITEPROTECT_MODE_WP : 0;
  // EAGAIN: the mappings of the process are changing; the whole range may simply be done again.
  while (ioctl(fd_, UFFDIO_WRITEPROTECT, &request) != 0) {
    if (errno != EAGAIN && errno != EINTR) throw SystemError(errno, "ioctl(UFFDIO_WRITEPROTECT)");
    sched_yield();
  }
}

size_t Userfault::copy(uint8_t* target, const uint8_t* source, size_t length, bool arm, int& error) {
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
    if (request.copy > 0) done += static_cast<size_t>(request.copy);
    else if (error == EAGAIN || error == EINTR) sched_yield();
    else return done;
  }
  return done;
}

}  // namespace tidemark
