#pragma once
// The kernel's part of tidemark, and nothing else of it: faults that it resolves by itself (WP_ASYNC), and a scan that arms again.
#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>

#include "../../../native/uffd_abi.h"
#include "support.h"

/** Memory in which writes are noticed, once it has been armed. */
class WriteFaults {
 public:
  WriteFaults(uint8_t* memory, size_t bytes) : start_(reinterpret_cast<uint64_t>(memory)), bytes_(bytes) {
    const int device = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);
    fd_ = device >= 0 ? ioctl(device, USERFAULTFD_IOC_NEW, O_CLOEXEC) : static_cast<int>(syscall(SYS_userfaultfd, O_CLOEXEC | UFFD_USER_MODE_ONLY));
    if (device >= 0) close(device);
    check(fd_ >= 0, "userfaultfd");
    uffdio_api api{UFFD_API, UFFD_FEATURE_PAGEFAULT_FLAG_WP | UFFD_FEATURE_WP_UNPOPULATED | UFFD_FEATURE_WP_ASYNC, 0};
    check(ioctl(fd_, UFFDIO_API, &api) == 0, "UFFDIO_API");
    uffdio_register registration{{start_, bytes}, UFFDIO_REGISTER_MODE_WP, 0};
    check(ioctl(fd_, UFFDIO_REGISTER, &registration) == 0, "UFFDIO_REGISTER");
    pagemap_ = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
    check(pagemap_ >= 0, "/proc/self/pagemap");
  }
  WriteFaults(const WriteFaults&) = delete;
  WriteFaults& operator=(const WriteFaults&) = delete;
  ~WriteFaults() {
    close(pagemap_);
    close(fd_);
    munmap(ranges_, rangeBytes());
  }

  void arm() const {
    uffdio_writeprotect protect{{start_, bytes_}, UFFDIO_WRITEPROTECT_MODE_WP};
    check(ioctl(fd_, UFFDIO_WRITEPROTECT, &protect) == 0, "UFFDIO_WRITEPROTECT");
  }

  /** Arms what it finds; how many of `ranges()`. */
  size_t scan() {
    pm_scan_arg scan{};
    scan.size = sizeof scan;
    scan.flags = PM_SCAN_WP_MATCHING | PM_SCAN_CHECK_WPASYNC;
    scan.start = start_;
    scan.end = start_ + bytes_;
    scan.vec = reinterpret_cast<uint64_t>(ranges_);
    scan.vec_len = bytes_ / kPage + 1;
    scan.category_mask = scan.return_mask = PAGE_IS_WRITTEN;
    const int count = ioctl(pagemap_, PAGEMAP_SCAN, &scan);
    // With room left the walk was complete; `walk_end` may be short of the end all the same.
    check(count >= 0 && static_cast<uint64_t>(count) < scan.vec_len, "PAGEMAP_SCAN");
    return static_cast<size_t>(count);
  }
  const page_region* ranges() const { return ranges_; }

  /** Fills pages that are not there: present, clean and armed. */
  void fill(size_t offset, const uint8_t* source, size_t length) const {
    uffdio_copy copy{start_ + offset, reinterpret_cast<uint64_t>(source), length, UFFDIO_COPY_MODE_WP, 0};
    while (ioctl(fd_, UFFDIO_COPY, &copy) != 0) {
      // Another thread maps or unmaps something.
      check(errno == EAGAIN, "UFFDIO_COPY");
      if (copy.copy <= 0) continue;
      copy.dst += static_cast<uint64_t>(copy.copy);
      copy.src += static_cast<uint64_t>(copy.copy);
      copy.len -= static_cast<uint64_t>(copy.copy);
    }
  }

 private:
  const uint64_t start_;
  const size_t bytes_;
  int fd_;
  int pagemap_;
  /** One more than there could be; touched only as far as there are. */
  page_region* const ranges_ = reinterpret_cast<page_region*>(map(rangeBytes()));

  size_t rangeBytes() const { return (bytes_ / kPage + 1) * sizeof(page_region); }
};
