#pragma once
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>

#include "peer.h"

/**
 * A child that fork() gives the memory as it was stores all of it; the first write to a page makes the kernel copy the page meanwhile. The parent
 * has no other threads: a child has only the one that forked, and may do little where others held locks.
 */
class Fork : public Peer {
 public:
  using Peer::Peer;

  void checkpoint() override {
    check(pipe(answer_) == 0 && pipe(leave_) == 0, "pipe");
    start_ = Clock::now();
    child_ = fork();
    check(child_ >= 0, "fork");
    if (child_ == 0) snapshot();
    blockedMs_ = since(start_);
  }

  void settle() override {
    Answer answer;
    check(write(leave_[1], "", 1) == 1, "pipe");
    close(answer_[1]);
    check(read(answer_[0], &answer, sizeof answer) == sizeof answer, "an answer of the child");
    int status;
    check(waitpid(child_, &status, 0) == child_ && status == 0, "the child");
    for (const int fd : {answer_[0], leave_[0], leave_[1]}) close(fd);
    file_.skip(answer.storedBytes);
    elsewhere_ = std::max(elsewhere_, answer.privateBytes);
    epochs.push_back({blockedMs_, answer.durableMs, answer.storedBytes, memory_.pages});
  }

  uint64_t bytesElsewhere() const override { return elsewhere_; }

 protected:
  void capture(bool) override { addAll(memory_.start); }

 private:
  struct Answer {
    double durableMs;
    uint64_t storedBytes, privateBytes;
  };

  pid_t child_ = -1;
  int answer_[2];
  int leave_[2];
  Clock::time_point start_;
  double blockedMs_ = 0;
  uint64_t elsewhere_ = 0;

  [[noreturn]] void snapshot() {
    capture(false);
    Answer answer{};
    answer.storedBytes = file_.append(chunks_);
    answer.durableMs = since(start_);
    // It lives until the parent has written what is measured, and so has to keep all that this made the kernel copy: pages that only it has.
    char byte;
    check(read(leave_[0], &byte, 1) == 1, "pipe");
    answer.privateBytes = procBytes("/proc/self/smaps_rollup", "Private_");
    check(write(answer_[1], &answer, sizeof answer) == sizeof answer, "pipe");
    _exit(0);
  }
};
