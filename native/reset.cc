#include <sys/mman.h>

#include "copy.h"
#include "errors.h"
#include "memory.h"
#include "region.h"

// What becomes of a region that the kernel does not track any more: a part of it was moved or has another mapping over it, or its descriptor was closed or its
// registration taken away by somebody. It is registered anew, and whoever asked for that counts all of it as written; but what was missing of it then was not written.

namespace tidemark {

void Region::reset(const uint8_t* start, size_t length) {
  const std::unique_lock<std::shared_mutex> hold(mutex_);
  if (closed_) throw closedError("region", id_);
  if (start != start_ || length < length_) check(start, length);
  // As long as some of it is not there, what is missing elsewhere goes on being served.
  checkReadable(start_, length_);
  if (residence_ != nullptr) {
    residence_->end();
    lost_ = residence_->poisoned();
  }
  // Without a descriptor from here on, should anything fail: then every operation says EPERM until a reset succeeds.
  forgetTracking();
  userfault_ = std::make_shared<Userfault>(Userfault::forTracking(!lost_.empty()));
  try {
    track(start_, length_);
    poisonLost();
  } catch (...) {
    userfault_ = nullptr;
    throw;
  }
}

void Region::poisonLost() {
  for (const Run& run : lost_) {
    const size_t length = static_cast<size_t>(run.count) * kPageSize;
    for (const Run& there : pagemap::present(page(run.first), length, true)) dropZeros({run.first + there.first, there.count});
    // Over the marker of an armed hole it would be EEXIST.
    userfault_->protect(page(run.first), length, false);
    if (userfault_->tryPoison(page(run.first), length) == 0) continue;
    // Some are poisoned already, or written.
    for (uint32_t k = 0; k < run.count; k++) userfault_->tryPoison(page(run.first + k), kPageSize);
  }
}

/** Who has only read a page that was not there any more has made it one of zeros. */
void Region::dropZeros(const Run& run) {
  for (uint32_t k = 0; k < run.count; k++) {
    if (isZero(page(run.first + k))) madvise(page(run.first + k), kPageSize, MADV_DONTNEED);
  }
}

void Region::forgetTracking() {
  if (userfault_ == nullptr) return;
  if (residence_ != nullptr) residence_->end();
  try {
    userfault_->unregister(start_, length_);
  } catch (const SystemError&) {
    // Parts that are not ours any more; closing the descriptor lets go of the rest.
  }
  letGo();
}

}  // namespace tidemark
