#pragma once
#include <cstddef>
#include <cstdint>
#include <utility>

#include "uffd_abi.h"

namespace tidemark {

/** How a descriptor was had, in the order in which the ways are tried. Tracking works with each of them. */
enum class Way { kNone, kDevice, kSyscall, kSyscallUserMode };

struct Attempts {
  Way way = Way::kNone;
  int deviceError = 0;
  int syscallError = 0;
  int userModeError = 0;
};

/** A userfaultfd(2); closing it ends every registration made with it. Failures throw SystemError. */
class Userfault {
 public:
  Userfault() = default;
  explicit Userfault(int fd);
  Userfault(Userfault&& other) noexcept : fd_(std::exchange(other.fd_, -1)), inode_(other.inode_) {}
  Userfault& operator=(Userfault&& other) noexcept {
    std::swap(fd_, other.fd_);
    std::swap(inode_, other.inode_);
    return *this;
  }
  ~Userfault();

  /** A descriptor without features yet, or an invalid one; what was tried is left in `attempts`. */
  static Userfault obtain(Attempts& attempts);
  /** All features of this kernel, from a throw-away descriptor: asking for too much spoils the one that asks. */
  static uint64_t supportedFeatures();
  /** A descriptor that is ready to track writes (WP_ASYNC, unpopulated pages included). */
  static Userfault forTracking(bool poisons = false);
  /** The same, for memory whose missing pages are served, and whose dropped ones are told of. `kernelFaults`: faults raised inside the kernel come, too. */
  static Userfault forServing(bool& kernelFaults);

  bool valid() const { return fd_ >= 0; }
  /** UFFDIO_API; returns the features that are on. */
  uint64_t enable(uint64_t features);
  /** Returns the ioctls that the range takes. */
  uint64_t registerForWrites(const uint8_t* start, size_t length);
  /** For faults on missing pages, besides. */
  uint64_t registerForServing(const uint8_t* start, size_t length);
  void unregister(const uint8_t* start, size_t length);
  /** Write-protects pages and holes, or takes the protection off them. */
  void protect(const uint8_t* start, size_t length, bool on);
  /**
   * UFFDIO_COPY into pages that are not there. With MODE_WP they are present, clean and armed in one step. Returns the bytes that were
   * copied; where these are fewer than asked for, `error` says why it stopped there.
   */
  size_t copy(uint8_t* target, const uint8_t* source, size_t length, bool arm, int& error);

  // Where events are read, EAGAIN says that one has to be read first: these do not wait for that, and return the error number.
  size_t tryCopy(uint8_t* target, const uint8_t* source, size_t length, bool arm, int& error);
  int tryProtect(const uint8_t* start, size_t length, bool on);
  int tryZero(const uint8_t* start, size_t length);
  int tryPoison(const uint8_t* start, size_t length);
  void wake(const uint8_t* start, size_t length);
  /** Messages that are there, up to `most`; does not wait. */
  size_t read(uffd_msg* messages, size_t most);
  /** -1 where somebody has closed it: the number may be that of another file, or of another userfaultfd, whose events are not ours. */
  int descriptor() const;

 private:
  uint64_t registerRange(const uint8_t* start, size_t length, uint64_t mode);
  int fd_ = -1;
  /** Each userfaultfd has one of its own (older kernels: one for all). */
  uint64_t inode_ = 0;
};

}  // namespace tidemark
