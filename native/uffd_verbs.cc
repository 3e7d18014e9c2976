#include "uffd_verbs.h"

#include <unistd.h>

#include <cerrno>

namespace tidemark::uffd {

namespace {
constexpr int kFlags = O_CLOEXEC | O_NONBLOCK;

uint64_t address(const uint8_t* memory) { return reinterpret_cast<uintptr_t>(memory); }

uffdio_range rangeOf(const uint8_t* start, size_t length) {
  uffdio_range range{};
  range.start = address(start);
  range.len = length;
  return range;
}

template <typename Request>
int ask(int fd, unsigned long request, Request& argument) {
  return ioctl(fd, request, &argument) == 0 ? 0 : errno;
}

/** `done` is what the kernel has written there: bytes, or a negative errno, or nothing. */
Outcome outcome(int error, int64_t done, size_t length) {
  if (error == 0) return {length, 0};
  return {done > 0 ? static_cast<size_t>(done) : 0, error};
}
}  // namespace

int openDevice(int flags) {
  const int device = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);
  if (device < 0) return -errno;
  const int fd = ioctl(device, USERFAULTFD_IOC_NEW, kFlags | flags);
  const int error = errno;
  close(device);
  return fd < 0 ? -error : fd;
}

int openSyscall(int flags) {
  const int fd = static_cast<int>(syscall(SYS_userfaultfd, kFlags | flags));
  return fd < 0 ? -errno : fd;
}

int api(int fd, uint64_t& features, uint64_t& ioctls) {
  uffdio_api request{};
  request.api = UFFD_API;
  request.features = features;
  const int error = ask(fd, UFFDIO_API, request);
  features = request.features;
  ioctls = request.ioctls;
  return error;
}

int registerRange(int fd, const uint8_t* start, size_t length, uint64_t mode, uint64_t& ioctls) {
  uffdio_register request{};
  request.range = rangeOf(start, length);
  request.mode = mode;
  const int error = ask(fd, UFFDIO_REGISTER, request);
  ioctls = request.ioctls;
  return error;
}

int unregisterRange(int fd, const uint8_t* start, size_t length) {
  uffdio_range range = rangeOf(start, length);
  return ask(fd, UFFDIO_UNREGISTER, range);
}

int wake(int fd, const uint8_t* start, size_t length) {
  uffdio_range range = rangeOf(start, length);
  return ask(fd, UFFDIO_WAKE, range);
}

int writeProtect(int fd, const uint8_t* start, size_t length, uint64_t mode) {
  uffdio_writeprotect request{};
  request.range = rangeOf(start, length);
  request.mode = mode;
  return ask(fd, UFFDIO_WRITEPROTECT, request);
}

Outcome copy(int fd, const uint8_t* target, const uint8_t* source, size_t length, uint64_t mode) {
  uffdio_copy request{};
  request.dst = address(target);
  request.src = address(source);
  request.len = length;
  request.mode = mode;
  const int error = ask(fd, UFFDIO_COPY, request);
  return outcome(error, request.copy, length);
}

Outcome move(int fd, const uint8_t* target, const uint8_t* source, size_t length, uint64_t mode) {
  uffdio_move request{};
  request.dst = address(target);
  request.src = address(source);
  request.len = length;
  request.mode = mode;
  const int error = ask(fd, UFFDIO_MOVE, request);
  return outcome(error, request.move, length);
}

Outcome zeropage(int fd, const uint8_t* start, size_t length, uint64_t mode) {
  uffdio_zeropage request{};
  request.range = rangeOf(start, length);
  request.mode = mode;
  const int error = ask(fd, UFFDIO_ZEROPAGE, request);
  return outcome(error, request.zeropage, length);
}

Outcome mapCached(int fd, const uint8_t* start, size_t length, uint64_t mode) {
  uffdio_continue request{};
  request.range = rangeOf(start, length);
  request.mode = mode;
  const int error = ask(fd, UFFDIO_CONTINUE, request);
  return outcome(error, request.mapped, length);
}

Outcome poison(int fd, const uint8_t* start, size_t length, uint64_t mode) {
  uffdio_poison request{};
  request.range = rangeOf(start, length);
  request.mode = mode;
  const int error = ask(fd, UFFDIO_POISON, request);
  return outcome(error, request.updated, length);
}

}  // namespace tidemark::uffd
