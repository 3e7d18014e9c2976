#pragma once
// Peers that are told what was written, page by page, by faults.
#include <fcntl.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <vector>

#include "../../../native/uffd_abi.h"
#include "peer.h"

/** Copies the pages that were written into a staging, and stores them from there. */
class Tracking : public Peer {
 public:
  using Peer::Peer;

 protected:
  std::vector<uint32_t> written_;

  /** Lists in `written_` what was written. */
  virtual void find() = 0;
  /** From here on writes are told again. */
  virtual void arm() = 0;

  void capture(bool first) override {
    // No staging for everything: the first epoch is stored from where it is.
    held_ = first;
    if (first) {
      addAll(memory_.start);
      return arm();
    }
    written_.clear();
    find();
    share(written_.size(), [&](size_t, size_t k, size_t end) {
      for (; k < end; k++) memcpy(staging_ + k * kPage, memory_.start + written_[k] * kPage, kPage);
    });
    arm();
    addListed(staging_, written_, false);
  }

 private:
  uint8_t* const staging_ = map(memory_.bytes());
};

/**
 * mprotect and a handler of SIGSEGV, which gives back one page at a time: a page alone between two that are protected makes two more mappings of the
 * process, and vm.max_map_count (65,530 unless it was raised) is reached with some 32,000 of them. Then the handler gives up 2 MiB around the page,
 * or everything, and all of that counts as written.
 */
class Protection : public Tracking {
 public:
  Protection(Memory memory, size_t threads, EpochFile& file) : Tracking(memory, threads, file) {
    state = {memory.start, memory.pages, map(memory.pages), 0};
    struct sigaction action {};
    action.sa_sigaction = onFault;
    action.sa_flags = SA_SIGINFO;
    check(sigaction(SIGSEGV, &action, nullptr) == 0, "sigaction");
  }

  uint64_t enlarged() const override { return state.enlarged; }

 protected:
  void find() override {
    for (size_t page = 0; page < state.pages; page += sizeof(uint64_t)) {
      uint64_t any;
      memcpy(&any, state.written + page, sizeof any);
      for (size_t k = page; any != 0 && k < page + sizeof any; k++) {
        if (state.written[k]) written_.push_back(static_cast<uint32_t>(k));
      }
    }
    memset(state.written, 0, state.pages);
  }

  void arm() override { check(mprotect(memory_.start, memory_.bytes(), PROT_READ) == 0, "mprotect"); }

 private:
  /** What the handler knows; one byte a page. */
  struct State {
    uint8_t* memory;
    size_t pages;
    uint8_t* written;
    uint64_t enlarged;
  };
  static inline State state;

  static bool giveBack(size_t page, size_t count) {
    if (mprotect(state.memory + page * kPage, count * kPage, PROT_READ | PROT_WRITE) != 0) return false;
    memset(state.written + page, 1, count);
    return true;
  }

  /** Only what may be called in a handler: mprotect, memset. */
  static void onFault(int, siginfo_t* info, void*) {
    constexpr size_t block = 512;
    const size_t at = static_cast<uint8_t*>(info->si_addr) - state.memory;
    if (at / kPage >= state.pages) {
      // Not ours: it happens again, and ends the process.
      signal(SIGSEGV, SIG_DFL);
      return;
    }
    const int error = errno;
    const size_t page = at / kPage;
    if (!giveBack(page, 1)) {
      state.enlarged++;
      const size_t first = page / block * block;
      if (!giveBack(first, std::min(block, state.pages - first)) && !giveBack(0, state.pages)) _exit(1);
    }
    errno = error;
  }
};

/** What tidemark is built on, and nothing else of it: faults that the kernel resolves by itself (WP_ASYNC), and a scan that arms again. */
class Userfault : public Tracking {
 public:
  Userfault(Memory memory, size_t threads, EpochFile& file) : Tracking(memory, threads, file) {
    const int device = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);
    fd_ = device >= 0 ? ioctl(device, USERFAULTFD_IOC_NEW, O_CLOEXEC) : static_cast<int>(syscall(SYS_userfaultfd, O_CLOEXEC | UFFD_USER_MODE_ONLY));
    check(fd_ >= 0, "userfaultfd");
    uffdio_api api{UFFD_API, UFFD_FEATURE_PAGEFAULT_FLAG_WP | UFFD_FEATURE_WP_UNPOPULATED | UFFD_FEATURE_WP_ASYNC, 0};
    check(ioctl(fd_, UFFDIO_API, &api) == 0, "UFFDIO_API");
    uffdio_register registration{{start(), memory.bytes()}, UFFDIO_REGISTER_MODE_WP, 0};
    check(ioctl(fd_, UFFDIO_REGISTER, &registration) == 0, "UFFDIO_REGISTER");
    pagemap_ = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
    check(pagemap_ >= 0, "/proc/self/pagemap");
  }

 protected:
  /** Arms what it finds: nothing is left for `arm`. */
  void find() override {
    pm_scan_arg scan{};
    scan.size = sizeof scan;
    scan.flags = PM_SCAN_WP_MATCHING | PM_SCAN_CHECK_WPASYNC;
    scan.start = start();
    scan.end = start() + memory_.bytes();
    scan.vec = reinterpret_cast<uint64_t>(runs_);
    scan.vec_len = memory_.pages + 1;
    scan.category_mask = scan.return_mask = PAGE_IS_WRITTEN;
    const int count = ioctl(pagemap_, PAGEMAP_SCAN, &scan);
    // With room left the walk was complete; `walk_end` may be short of the end all the same.
    check(count >= 0 && static_cast<uint64_t>(count) < scan.vec_len, "PAGEMAP_SCAN");
    for (int k = 0; k < count; k++) {
      for (uint64_t at = runs_[k].start; at < runs_[k].end; at += kPage) written_.push_back(static_cast<uint32_t>((at - start()) / kPage));
    }
  }

  void arm() override {
    if (armed_) return;
    uffdio_writeprotect protect{{start(), memory_.bytes()}, UFFDIO_WRITEPROTECT_MODE_WP};
    check(ioctl(fd_, UFFDIO_WRITEPROTECT, &protect) == 0, "UFFDIO_WRITEPROTECT");
    armed_ = true;
  }

 private:
  int fd_;
  int pagemap_;
  bool armed_ = false;
  /** One more than there could be; touched only as far as there are. */
  page_region* const runs_ = reinterpret_cast<page_region*>(map((memory_.pages + 1) * sizeof(page_region)));

  uint64_t start() const { return reinterpret_cast<uint64_t>(memory_.start); }
};
