#include <sys/mman.h>

#include <cerrno>

#include "errors.h"
#include "pager.h"
#include "region.h"
#include "shared_file.h"

// A region whose pages are filled when they are touched.

namespace tidemark {

std::shared_ptr<Residence> Region::becomeLazy(const Runs& missing, bool userFaults, std::function<void()> notify) {
  const std::unique_lock<std::shared_mutex> hold(mutex_);
  checkOpen();
  check(missing);
  const std::shared_ptr<SharedFile> file = privateAnonymous_ ? nullptr : SharedFile::find(start_, length_);
  if ((!privateAnonymous_ && file == nullptr) || hostPageSize() != kPageSize) throw CodedError("ERR_SHARED", "only private memory and files on tmpfs that Region.map has mapped, in pages of 4 KiB, can be filled when they are touched");
  bool kernelFaults = false;
  auto userfault = std::make_shared<Userfault>(Userfault::forServing(kernelFaults));
  if (!kernelFaults && !userFaults) throw CodedError("ERR_USER_MODE", "faults that the kernel has on memory of this process cannot be served without a privilege");
  auto residence = std::make_shared<Residence>(userfault, start_, static_cast<uint32_t>(length_ / kPageSize), missing, std::move(notify));
  // Before anything is given up: nobody may wait for a thread that could not be made.
  const uint64_t key = pager::add(residence);
  try {
    forgetTracking();
    userfault->registerForServing(start_, length_);
    userfault_ = userfault;
    residence_ = residence;
    pagerKey_ = key;
    // Registered first: whoever touches a page between its being dropped and its being registered would make it one of zeros.
    for (const Run& run : missing) {
      uint8_t* const from = page(run.first);
      const size_t length = static_cast<size_t>(run.count) * kPageSize;
      if (file != nullptr ? !file->punch(from, length) : madvise(from, length, MADV_DONTNEED) != 0) throw SystemError(errno, "madvise(MADV_DONTNEED)");
    }
    residence->began();
    arm(start_, length_);
  } catch (...) {
    residence->end();
    // What is tried next must know of them.
    lost_ = residence->poisoned();
    pager::remove(key);
    residence_ = nullptr;
    userfault_ = nullptr;
    throw;
  }
  return residence;
}

void Region::checkLazy(const std::shared_ptr<Residence>& residence) const {
  checkOpen();
  if (residence_ != residence) throw CodedError("ERR_NOT_LAZY", "another restore of the region has begun");
}

size_t Region::supply(const std::shared_ptr<Residence>& residence, const uint8_t* source, const std::vector<uint32_t>& pages, bool byFault, const std::function<void(const std::vector<size_t>&)>& beforeCopy) {
  const std::shared_lock<std::shared_mutex> hold(mutex_);
  checkLazy(residence);
  check(pages);
  return residence->supply(source, pages, byFault, beforeCopy);
}

void Region::poison(const std::shared_ptr<Residence>& residence, const Runs& pages) {
  const std::shared_lock<std::shared_mutex> hold(mutex_);
  checkLazy(residence);
  check(pages);
  residence->poison(pages);
}

bool Region::anyMissing() {
  const std::shared_lock<std::shared_mutex> hold(mutex_);
  checkOpen();
  return residence_ != nullptr && residence_->anyMissing();
}

bool Region::fetch(const Runs& pages) {
  const std::shared_lock<std::shared_mutex> hold(mutex_);
  checkOpen();
  check(pages);
  return residence_ != nullptr && residence_->fetch(pages);
}

Runs Region::poisoned(bool drop) {
  Runs poisoned;
  {
    const std::shared_lock<std::shared_mutex> hold(mutex_);
    poisoned = residence_ == nullptr ? lost_ : residence_->poisoned();
    if (!drop) return poisoned;
    // Where there is a residence, the event makes them plain pages.
    for (const Run& run : poisoned) {
      if (madvise(page(run.first), static_cast<size_t>(run.count) * kPageSize, MADV_DONTNEED) != 0) throw SystemError(errno, "madvise(MADV_DONTNEED)");
    }
    if (residence_ != nullptr) residence_->awaitEvents();
  }
  const std::unique_lock<std::shared_mutex> hold(mutex_);
  lost_.clear();
  return poisoned;
}

}  // namespace tidemark
