#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "copy.h"
#include "errors.h"
#include "region.h"
#include "shared_file.h"

// Putting content into a region so that it is clean and armed afterwards. What somebody writes between the writing and the
// arming of a page is reported by no scan (21 of 204,800 pages in a probe with one writer): so every page is compared after it
// was armed, and given back where it is not what was put there. A write after the arming the kernel notices by itself.

namespace tidemark {

namespace {
/**
 * Writes through the kernel where it lets us: memory that the program makes inaccessible meanwhile (a buffer that is resized
 * does that) is EFAULT then, not SIGSEGV.
 */
void store(uint8_t* target, const uint8_t* source, size_t length) {
  for (size_t done = 0; done < length;) {
    iovec from{const_cast<uint8_t*>(source) + done, length - done};
    iovec to{target + done, length - done};
    const ssize_t written = process_vm_writev(getpid(), &from, 1, &to, 1, 0);
    if (written > 0) {
      done += static_cast<size_t>(written);
    } else if (errno == ENOSYS || errno == EPERM) {
      memcpy(target + done, source + done, length - done);
      return;
    } else {
      throw SystemError(errno, "process_vm_writev");
    }
  }
}

/** Looking at so many pages takes about as long as one more system call. */
constexpr size_t kPagesPerLook = 512;
}  // namespace

void Region::fill(const uint8_t* source, const std::vector<uint32_t>& pages) {
  const std::shared_lock<std::shared_mutex> hold(mutex_);
  checkOpen();
  check(pages);
  // Each a range of indices into `pages`.
  std::vector<std::pair<size_t, size_t>> runs;
  for (size_t k = 0; k < pages.size(); k++) {
    if (k > 0 && pages[k] == pages[k - 1] + 1) runs.back().second++;
    else runs.emplace_back(k, k + 1);
  }
  // UFFDIO_COPY fills what has no content yet, of private anonymous memory and of files that were mapped here (twice as fast as writing
  // there); of anything else the content is in a page cache already. And it takes whole host pages.
  const bool canCopy = (privateAnonymous_ || SharedFile::find(start_, length_) != nullptr) && hostPageSize() == kPageSize;
  // What is present is found out before: writing there and arming again is twice as fast as being told EEXIST, for which
  // the kernel has copied the page in vain. One look at everything, or where that is far more than the runs, at each run.
  const size_t span = pages.empty() ? 0 : pages.back() - pages.front() + 1;
  const bool together = span <= runs.size() * kPagesPerLook;
  Runs present;
  uint32_t presentFrom = 0;
  if (canCopy && together && span > 0) {
    presentFrom = pages.front();
    present = pagemap::present(page(presentFrom), span * kPageSize, true);
  }
  size_t next = 0;
  bool anyWritten = false;
  for (const auto& [from, to] : runs) {
    const uint8_t* bytes = source + from * kPageSize;
    const uint32_t first = pages[from];
    const uint32_t count = static_cast<uint32_t>(to - from);
    if (!canCopy) {
      rewrite(bytes, first, count, true);
      continue;
    }
    if (!together) {
      presentFrom = first;
      present = pagemap::present(page(first), count * kPageSize, true);
      next = 0;
    }
    for (uint32_t at = first; at < first + count;) {
      while (next < present.size() && presentFrom + present[next].first + present[next].count <= at) next++;
      const bool any = next < present.size();
      const uint32_t begin = any ? std::min(presentFrom + present[next].first, first + count) : first + count;
      if (begin > at) {
        copyRun(bytes + (at - first) * kPageSize, at, begin - at);
        at = begin;
      } else {
        const uint32_t end = std::min(presentFrom + present[next].first + present[next].count, first + count);
        const uint8_t* content = bytes + (at - first) * kPageSize;
        if (together) store(page(at), content, (end - at) * kPageSize);
        else rewrite(content, at, end - at, false);
        anyWritten = anyWritten || together;
        at = end;
      }
    }
  }
  if (anyWritten) armTogether(source, pages);
}

/**
 * Arming pages that lie apart one by one takes longer than all else about them: a system call and an interruption of the other cores for each. One scan
 * of all that lies between the first and the last arms what was written; what is not ours of that is given back, and so counts as written as before.
 * One thread at a time: what another one fills must not be given back after that one has armed it.
 */
void Region::armTogether(const uint8_t* source, const std::vector<uint32_t>& pages) {
  {
    const std::lock_guard<std::mutex> guard(arming_);
    const uint32_t start = pages.front();
    size_t next = 0;
    for (const Run& run : pagemap::written(page(start), (pages.back() - start + 1) * kPageSize, true)) {
      const uint32_t end = start + run.first + run.count;
      for (uint32_t at = start + run.first; at < end;) {
        while (next < pages.size() && pages[next] < at) next++;
        const uint32_t ours = next < pages.size() ? std::min(pages[next], end) : end;
        if (ours > at) userfault_->protect(page(at), (ours - at) * kPageSize, false);
        at = ours + 1;
      }
    }
  }
  for (size_t k = 0; k < pages.size(); k++) {
    if (memcmp(page(pages[k]), source + k * kPageSize, kPageSize) != 0) userfault_->protect(page(pages[k]), kPageSize, false);
  }
}

void Region::copyRun(const uint8_t* source, uint32_t first, uint32_t count) {
  for (uint32_t done = 0; done < count;) {
    int error = 0;
    done += static_cast<uint32_t>(userfault_->copy(page(first + done), source + done * kPageSize, (count - done) * kPageSize, true, error) / kPageSize);
    if (done == count) return;
    // EEXIST: swapped out, or present since just now. ENOENT: the range goes on in another mapping.
    if (error != EEXIST && error != ENOENT) throw SystemError(error, "ioctl(UFFDIO_COPY)");
    // Of a file: in the page cache and not in our page table, or reserved by fallocate(2), and then probably all that follows is. (To
    // ask the file beforehand is no help: SEEK_HOLE walks over all that has content, however far that goes.)
    const uint32_t next = privateAnonymous_ ? 1 : count - done;
    rewrite(source + done * kPageSize, first + done, next, error != EEXIST);
    done += next;
  }
}

template <typename Write>
void Region::overwrite(uint32_t first, uint32_t count, bool verify, Write&& write) {
  const size_t length = count * kPageSize;
  const Run whole = hostPages({first, count});
  if (whole.count != count) {
    // A host page is larger than ours, and what else is in it may be dirty, which arming would forget. Then it stays so:
    // reporting too much is harmless.
    const bool dirty = !pagemap::written(page(whole.first), whole.count * kPageSize, false).empty();
    write(page(first), length);
    if (!dirty) userfault_->protect(page(whole.first), whole.count * kPageSize, true);
    return;
  }
  // Where the kernel has not just said that there is memory: fails before anything is touched if it is gone or not tracked.
  if (verify) userfault_->protect(page(first), length, true);
  write(page(first), length);
  userfault_->protect(page(first), length, true);
}

void Region::rewrite(const uint8_t* source, uint32_t first, uint32_t count, bool verify) {
  overwrite(first, count, verify, [source](uint8_t* target, size_t length) { store(target, source, length); });
  giveBackWhere(first, count, [&](uint32_t k) { return memcmp(page(first + k), source + k * kPageSize, kPageSize) != 0; });
}

template <typename Differs>
void Region::giveBackWhere(uint32_t first, uint32_t count, Differs&& differs) {
  for (uint32_t k = 0; k < count; k++) {
    if (!differs(k)) continue;
    const Run whole = hostPages({first + k, 1});
    userfault_->protect(page(whole.first), whole.count * kPageSize, false);
  }
}

void Region::read(const std::vector<uint32_t>& pages, const std::vector<uint8_t*>& targets) {
  const std::shared_lock<std::shared_mutex> hold(mutex_);
  checkOpen();
  for (const uint32_t number : pages) {
    if (number >= length_ / kPageSize) throw ArgumentError(ArgumentError::kRange, "pages must lie within the region");
  }
  // Through the kernel, as `store`: so many at once as one call takes.
  constexpr size_t kAtOnce = 256;
  for (size_t k = 0; k < pages.size(); k += kAtOnce) {
    const size_t count = std::min(kAtOnce, pages.size() - k);
    iovec from[kAtOnce];
    iovec to[kAtOnce];
    for (size_t j = 0; j < count; j++) {
      from[j] = {page(pages[k + j]), kPageSize};
      to[j] = {targets[k + j], kPageSize};
    }
    const ssize_t got = process_vm_readv(getpid(), to, count, from, count, 0);
    if (got == static_cast<ssize_t>(count * kPageSize)) continue;
    if (got < 0 && errno != ENOSYS && errno != EPERM) throw SystemError(errno, "process_vm_readv");
    if (got >= 0) throw SystemError(EFAULT, "process_vm_readv");
    for (size_t j = 0; j < count; j++) memcpy(targets[k + j], page(pages[k + j]), kPageSize);
  }
}

void Region::zero(const Runs& runs) {
  const std::shared_lock<std::shared_mutex> hold(mutex_);
  checkOpen();
  check(runs);
  const std::shared_ptr<SharedFile> file = privateAnonymous_ ? nullptr : SharedFile::find(start_, length_);
  // Only private anonymous memory becomes zero when it is dropped; of a file on tmpfs a hole has to be made, or zeros take memory where
  // there was none. Locked pages (mlock) cannot be dropped at all.
  const auto drop = [&](uint8_t* from, size_t length) {
    if (privateAnonymous_) return madvise(from, length, MADV_DONTNEED) == 0;
    return file != nullptr && file->punch(from, length);
  };
  for (const Run& run : runs) {
    uint8_t* from = page(run.first);
    const size_t length = run.count * kPageSize;
    if (hostPages(run).count == run.count && drop(from, length)) {
      userfault_->protect(from, length, true);
    } else {
      overwrite(run.first, run.count, true, [](uint8_t* target, size_t bytes) { memset(target, 0, bytes); });
    }
    // Only what is present can have been written; looking at the others would make them present.
    for (const Run& there : pagemap::present(from, length, true)) {
      const uint32_t start = run.first + there.first;
      giveBackWhere(start, there.count, [&](uint32_t k) { return !isZero(page(start + k)); });
    }
  }
}

}  // namespace tidemark
