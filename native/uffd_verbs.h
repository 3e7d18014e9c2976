#pragma once
#include <cstddef>
#include <cstdint>

#include "uffd_abi.h"

/**
 * Every ioctl of linux/userfaultfd.h (Linux 6.8), one thin function each: no policy, no second try, nothing thrown. Those that are done
 * entirely or not at all return 0 or the errno.
 */
namespace tidemark::uffd {

/** What an ioctl did that may stop half-way: the bytes that are done, and the errno (0: all of them). EAGAIN after a part says only that it stopped. */
struct Outcome {
  size_t done = 0;
  int error = 0;
};

/** A new descriptor, non-blocking and close-on-exec, or -errno. `flags`: UFFD_USER_MODE_ONLY. */
int openDevice(int flags);
int openSyscall(int flags);

/** `features`: those to switch on; replaced by all that the kernel has. One that it does not have spoils the descriptor. */
int api(int fd, uint64_t& features, uint64_t& ioctls);
int registerRange(int fd, const uint8_t* start, size_t length, uint64_t mode, uint64_t& ioctls);
int unregisterRange(int fd, const uint8_t* start, size_t length);
int wake(int fd, const uint8_t* start, size_t length);
int writeProtect(int fd, const uint8_t* start, size_t length, uint64_t mode);

Outcome copy(int fd, const uint8_t* target, const uint8_t* source, size_t length, uint64_t mode);
/** Leaves holes where the pages were. */
Outcome move(int fd, const uint8_t* target, const uint8_t* source, size_t length, uint64_t mode);
Outcome zeropage(int fd, const uint8_t* start, size_t length, uint64_t mode);
/** UFFDIO_CONTINUE: maps what the page cache has. */
Outcome mapCached(int fd, const uint8_t* start, size_t length, uint64_t mode);
Outcome poison(int fd, const uint8_t* start, size_t length, uint64_t mode);

}  // namespace tidemark::uffd
