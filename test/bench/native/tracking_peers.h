#pragma once
// Peers that are told what was written, page by page, by faults.
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <vector>

#include "peer.h"
#include "write_faults.h"

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

/** What tidemark is built on, and nothing else of it. */
class Userfault : public Tracking {
 public:
  using Tracking::Tracking;

 protected:
  /** Arms what it finds: nothing is left for `arm`. */
  void find() override {
    const size_t count = faults_.scan();
    for (size_t k = 0; k < count; k++) {
      const page_region& range = faults_.ranges()[k];
      for (uint64_t at = range.start; at < range.end; at += kPage) written_.push_back(static_cast<uint32_t>((at - reinterpret_cast<uint64_t>(memory_.start)) / kPage));
    }
  }

  void arm() override {
    if (!armed_) faults_.arm();
    armed_ = true;
  }

 private:
  WriteFaults faults_{memory_.start, memory_.bytes()};
  bool armed_ = false;
};
