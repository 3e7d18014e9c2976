#include <sched.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "copy.h"
#include "errors.h"
#include "residence.h"

// What the kernel says of a residence, and what is answered at once: with the gate held alone.

namespace tidemark {

namespace {
/** Touched pages that are remembered. */
constexpr size_t kMostTouched = 1 << 20;
alignas(kPageSize) const uint8_t kZeroPage[kPageSize] = {};
}  // namespace

void Residence::readEvents() {
  bool news = false;
  {
    const auto hold = passAlone();
    std::array<uffd_msg, 32> messages;
    std::vector<Hole> holes;
    for (;;) {
      const size_t count = userfault_->read(messages.data(), messages.size());
      for (size_t k = 0; k < count; k++) {
        const uffd_msg& message = messages[k];
        if (message.event == UFFD_EVENT_REMOVE) {
          onRemove(message.arg.remove.start, message.arg.remove.end);
        } else if (message.event == UFFD_EVENT_PAGEFAULT) {
          const uint64_t number = (message.arg.pagefault.address - reinterpret_cast<uintptr_t>(start_)) / kPageSize;
          if (number >= pageCount_) continue;
          if (isMissing(static_cast<uint32_t>(number))) onFault(static_cast<uint32_t>(number));
          else holes.push_back({static_cast<uint32_t>(number), (message.arg.pagefault.flags & UFFD_PAGEFAULT_FLAG_WRITE) != 0, false, false});
        }
      }
      // Only when there is no event left: before that everything is EAGAIN.
      if (count == messages.size()) continue;
      while (!holes.empty() && answerHole(holes.back()) != EAGAIN) holes.pop_back();
      if (holes.empty()) break;
      sched_yield();
    }
    const std::lock_guard<std::mutex> guard(mutex_);
    news = !faults_.empty();
  }
  if (news) notify_();
}

void Residence::onFault(uint32_t number) {
  const std::lock_guard<std::mutex> guard(mutex_);
  if (!waiting_.emplace(number, Clock::now()).second) return;
  faultCount_++;
  faults_.push_back(number);
  if (touched_.size() < kMostTouched) touched_.push_back(number);
}

void Residence::onRemove(uint64_t from, uint64_t to) {
  const uint64_t base = reinterpret_cast<uintptr_t>(start_);
  const uint64_t end = base + static_cast<uint64_t>(pageCount_) * kPageSize;
  from = std::max(from, base);
  to = std::min(to, end);
  if (from >= to) return;
  const auto first = static_cast<uint32_t>((from - base) / kPageSize);
  if (began_) forget({{first, static_cast<uint32_t>((to - from) / kPageSize)}});
  // Who waits for one of them touches it again, and finds a hole.
  userfault_->wake(page(first), to - from);
}

int Residence::answerHole(Hole& hole) {
  uint8_t* const target = page(hole.number);
  if (!hole.known) {
    try {
      // A hole that is armed was zero at the last capture. One that is not was dropped since, and must be reported.
      hole.armed = pagemap::written(target, kPageSize, false).empty();
    } catch (const SystemError&) {
      // Not tracked any more.
    }
    // Once: what is tried again may have taken the marker off.
    hole.known = true;
  }
  int error = 0;
  if (hole.write) userfault_->tryCopy(target, kZeroPage, kPageSize, hole.armed, error);
  else error = mapZero(hole);
  if (error != EAGAIN) userfault_->wake(target, kPageSize);
  return error;
}

/** For who only reads: the kernel's page of zeros, which takes no memory. It cannot be armed in the same step, nor mapped over the marker of an armed hole. */
int Residence::mapZero(const Hole& hole) {
  uint8_t* const target = page(hole.number);
  int error = hole.armed ? userfault_->tryProtect(target, kPageSize, false) : 0;
  if (error == 0) error = userfault_->tryZero(target, kPageSize);
  if (!hole.armed || (error != 0 && error != EEXIST)) return error;
  error = userfault_->tryProtect(target, kPageSize, true);
  // Written before it was armed: no scan would report it. (It cannot have been dropped: that waits until its event is read.)
  if (error == 0 && !isZeroThere(hole.number)) userfault_->tryProtect(target, kPageSize, false);
  return error;
}

/** Through the kernel, as it may be unmapped. */
bool Residence::isZeroThere(uint32_t number) const {
  alignas(kPageSize) uint8_t found[kPageSize];
  iovec to{found, kPageSize};
  iovec from{page(number), kPageSize};
  return process_vm_readv(getpid(), &to, 1, &from, 1, 0) == static_cast<ssize_t>(kPageSize) && isZero(found);
}

}  // namespace tidemark
