#include "userfault.h"

#include <sched.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>

#include "errors.h"
#include "uffd_verbs.h"

namespace tidemark {

namespace {
constexpr uint64_t kTrackingFeatures = UFFD_FEATURE_PAGEFAULT_FLAG_WP | UFFD_FEATURE_WP_UNPOPULATED | UFFD_FEATURE_WP_ASYNC;
constexpr uint64_t kServingFeatures = UFFD_FEATURE_EVENT_REMOVE | UFFD_FEATURE_POISON;

Userfault withFeatures(uint64_t features, Attempts& attempts) {
  if ((Userfault::supportedFeatures() & features) != features) throw SystemError(EOPNOTSUPP, "ioctl(UFFDIO_API)");
  Userfault result = Userfault::obtain(attempts);
  if (!result.valid()) throw SystemError(attempts.userModeError, "userfaultfd");
  if ((result.enable(features) & features) != features) throw SystemError(EOPNOTSUPP, "ioctl(UFFDIO_API)");
  return result;
}

uint64_t inodeOf(int fd) {
  struct stat found{};
  return fstat(fd, &found) == 0 ? found.st_ino : 0;
}
}  // namespace

Userfault::Userfault(int fd) : fd_(fd), inode_(inodeOf(fd)) {}

Userfault::~Userfault() {
  const int fd = descriptor();
  if (fd >= 0) close(fd);
}

int Userfault::descriptor() const { return fd_ >= 0 && inodeOf(fd_) == inode_ ? fd_ : -1; }

Userfault Userfault::obtain(Attempts& attempts) {
  attempts = Attempts();
  // The device first: its file permission decides, also where seccomp forbids the system call.
  int fd = uffd::openDevice(0);
  if (fd >= 0) {
    attempts.way = Way::kDevice;
    return Userfault(fd);
  }
  attempts.deviceError = -fd;
  fd = uffd::openSyscall(0);
  if (fd >= 0) {
    attempts.way = Way::kSyscall;
    return Userfault(fd);
  }
  attempts.syscallError = -fd;
  // Never needs a privilege. Kernel-mode stores into armed pages are tracked with it, too: WP_ASYNC raises no fault.
  fd = uffd::openSyscall(UFFD_USER_MODE_ONLY);
  if (fd >= 0) {
    attempts.way = Way::kSyscallUserMode;
    return Userfault(fd);
  }
  attempts.userModeError = -fd;
  return Userfault();
}

uint64_t Userfault::enable(uint64_t features) {
  uint64_t ioctls = 0;
  const int error = uffd::api(fd_, features, ioctls);
  if (error != 0) throw SystemError(error, "ioctl(UFFDIO_API)");
  return features;
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

Userfault Userfault::forTracking(bool poisons) {
  Attempts attempts;
  return withFeatures(kTrackingFeatures | (poisons ? UFFD_FEATURE_POISON : 0), attempts);
}

Userfault Userfault::forServing(bool& kernelFaults) {
  Attempts attempts;
  Userfault result = withFeatures(kTrackingFeatures | kServingFeatures, attempts);
  kernelFaults = attempts.way != Way::kSyscallUserMode;
  return result;
}

uint64_t Userfault::registerRange(const uint8_t* start, size_t length, uint64_t mode) {
  uint64_t ioctls = 0;
  const int error = uffd::registerRange(fd_, start, length, mode, ioctls);
  if (error != 0) throw SystemError(error, "ioctl(UFFDIO_REGISTER)");
  return ioctls;
}

uint64_t Userfault::registerForWrites(const uint8_t* start, size_t length) {
  return registerRange(start, length, UFFDIO_REGISTER_MODE_WP);
}

uint64_t Userfault::registerForServing(const uint8_t* start, size_t length) {
  return registerRange(start, length, UFFDIO_REGISTER_MODE_WP | UFFDIO_REGISTER_MODE_MISSING);
}

void Userfault::unregister(const uint8_t* start, size_t length) {
  const int error = uffd::unregisterRange(fd_, start, length);
  if (error != 0) throw SystemError(error, "ioctl(UFFDIO_UNREGISTER)");
}

void Userfault::protect(const uint8_t* start, size_t length, bool on) {
  // EAGAIN: the mappings of the process are changing; the whole range may simply be done again.
  for (int error = tryProtect(start, length, on); error != 0; error = tryProtect(start, length, on)) {
    if (error != EAGAIN && error != EINTR) throw SystemError(error, "ioctl(UFFDIO_WRITEPROTECT)");
    sched_yield();
  }
}

int Userfault::tryProtect(const uint8_t* start, size_t length, bool on) {
  return uffd::writeProtect(fd_, start, length, on ? UFFDIO_WRITEPROTECT_MODE_WP : 0);
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
    // A short copy says EAGAIN and how much was done; the next try finds out what stopped it.
    const uffd::Outcome outcome = uffd::copy(fd_, target + done, source + done, length - done, arm ? UFFDIO_COPY_MODE_WP : 0);
    done += outcome.done;
    error = done == length ? 0 : outcome.error;
    if (outcome.done == 0) break;
  }
  return done;
}

int Userfault::tryZero(const uint8_t* start, size_t length) {
  // Nobody is woken: who wakes may have something to do before.
  return uffd::zeropage(fd_, start, length, UFFDIO_ZEROPAGE_MODE_DONTWAKE).error;
}

int Userfault::tryPoison(const uint8_t* start, size_t length) {
  for (size_t done = 0; done < length;) {
    const uffd::Outcome outcome = uffd::poison(fd_, start + done, length - done, 0);
    if (outcome.done == 0) return outcome.error;
    done += outcome.done;
  }
  return 0;
}

void Userfault::wake(const uint8_t* start, size_t length) {
  // It fails only for memory that is not there any more, where nobody waits.
  uffd::wake(fd_, start, length);
}

size_t Userfault::read(uffd_msg* messages, size_t most) {
  const ssize_t got = ::read(descriptor(), messages, most * sizeof *messages);
  return got <= 0 ? 0 : static_cast<size_t>(got) / sizeof *messages;
}

}  // namespace tidemark
