#include "residence.h"

#include <sched.h>

#include <algorithm>
#include <cerrno>
#include <cmath>

#include "errors.h"

namespace tidemark {

namespace {
/** Pages copied while the gate is held: an event waits no longer than for these. */
constexpr uint32_t kAtOnce = 64;
/** Pages that are asked for together, and how long is waited for them between two looks. */
constexpr size_t kFetchedAtOnce = 256;
constexpr auto kLook = std::chrono::milliseconds(20);

/** Of UFFDIO_COPY and others: there is a mapping of another kind, or none, or the descriptor is not a userfaultfd of ours any more. */
bool isNotOurs(int error) { return error == ENOENT || error == ESRCH || error == EBADF || error == ENOTTY || error == EINVAL; }
}  // namespace

Residence::Residence(std::shared_ptr<Userfault> userfault, uint8_t* start, uint32_t pageCount, const Runs& missing, std::function<void()> notify)
    : userfault_(std::move(userfault)), start_(start), pageCount_(pageCount), notify_(std::move(notify)), states_(pageCount) {
  for (const Run& run : missing) {
    for (uint32_t k = 0; k < run.count; k++) states_[run.first + k].store(kMissing, std::memory_order_relaxed);
    missingCount_ += run.count;
  }
}

void Residence::set(uint32_t number, State state) {
  const auto before = static_cast<State>(states_[number].exchange(state));
  const auto isMissing = [](State one) { return one == kMissing || one == kFilling; };
  const auto isGone = [](State one) { return one == kPoisoned || one == kLost; };
  if (isMissing(before) && !isMissing(state)) missingCount_--;
  if (isGone(before) && !isGone(state)) poisonedCount_--;
  if (!isGone(before) && isGone(state)) poisonedCount_++;
}

bool Residence::claim(uint32_t number) {
  // A region may have grown since; what came with that was never missing.
  if (number >= pageCount_) return false;
  uint8_t expected = kMissing;
  return states_[number].compare_exchange_strong(expected, kFilling);
}

std::shared_lock<std::shared_mutex> Residence::pass() {
  while (wanted_.load() > 0) sched_yield();
  return std::shared_lock<std::shared_mutex>(gate_);
}

std::unique_lock<std::shared_mutex> Residence::passAlone() {
  wanted_++;
  std::unique_lock<std::shared_mutex> hold(gate_);
  wanted_--;
  return hold;
}

size_t Residence::supply(const uint8_t* source, const std::vector<uint32_t>& pages, bool byFault, const std::function<void(const std::vector<size_t>&)>& beforeCopy) {
  std::vector<size_t> mine;
  for (size_t k = 0; k < pages.size(); k++) {
    if (claim(pages[k])) mine.push_back(k);
  }
  if (mine.empty()) return 0;
  try {
    beforeCopy(mine);
    for (size_t k = 0; k < mine.size();) {
      size_t end = k + 1;
      while (end < mine.size() && end - k < kAtOnce && mine[end] == mine[end - 1] + 1 && pages[mine[end]] == pages[mine[end - 1]] + 1) end++;
      copyClaimed(source + mine[k] * kPageSize, pages[mine[k]], static_cast<uint32_t>(end - k), byFault);
      k = end;
    }
  } catch (...) {
    // What is still claimed is missing again: somebody may wait for it.
    for (const size_t k : mine) {
      uint8_t expected = kFilling;
      states_[pages[k]].compare_exchange_strong(expected, kMissing);
    }
    throw;
  }
  return mine.size();
}

void Residence::copyClaimed(const uint8_t* source, uint32_t first, uint32_t count, bool byFault) {
  uint32_t most = count;
  for (uint32_t done = 0; done < count;) {
    int error = 0;
    bool several = false;
    {
      const auto hold = pass();
      // Dropped or poisoned meanwhile: not ours any more.
      if (states_[first + done] != kFilling) {
        done++;
        continue;
      }
      uint32_t end = done + 1;
      while (end < count && end - done < most && states_[first + end] == kFilling) end++;
      several = end - done > 1;
      const size_t copied = userfault_->tryCopy(page(first + done), source + static_cast<size_t>(done) * kPageSize, (end - done) * kPageSize, true, error);
      const auto filled = static_cast<uint32_t>(copied / kPageSize);
      for (uint32_t k = 0; k < filled; k++) set(first + done + k, kPlain);
      noteFilled(first + done, filled, byFault);
      done += filled;
      if (error == EEXIST) {
        // There already, whoever put it there: it is not to be overwritten.
        set(first + done, kPlain);
        userfault_->wake(page(first + done), kPageSize);
        done++;
        error = 0;
      }
    }
    if (error == EAGAIN || error == EINTR) readEvents();
    // Of several pages, also when they lie in two mappings (mprotect or madvise of a part have split it).
    else if (isNotOurs(error) && several) most = 1;
    // It reads as zero.
    else if (isNotOurs(error)) lose(first + done++);
    else if (error != 0) throw SystemError(error, "ioctl(UFFDIO_COPY)");
  }
}

void Residence::lose(uint32_t number) {
  set(number, kLost);
  userfault_->wake(page(number), kPageSize);
  const std::lock_guard<std::mutex> guard(mutex_);
  waiting_.erase(number);
  resolved_.notify_all();
}

void Residence::noteFilled(uint32_t first, uint32_t count, bool byFault) {
  const std::lock_guard<std::mutex> guard(mutex_);
  resolved_.notify_all();
  (byFault ? byFault_ : ahead_) += count;
  if (waiting_.empty()) return;
  const auto now = Clock::now();
  for (uint32_t k = 0; k < count && !waiting_.empty(); k++) {
    const auto found = waiting_.find(first + k);
    if (found == waiting_.end()) continue;
    const double wait = std::chrono::duration<double, std::micro>(now - found->second).count();
    waiting_.erase(found);
    worst_ = std::max(worst_, wait);
    waits_[static_cast<size_t>(std::clamp(std::log2(std::max(wait, 1.0)) * 8, 0.0, static_cast<double>(waits_.size() - 1)))]++;
  }
}

void Residence::poison(const Runs& pages) {
  for (const Run& run : pages) {
    uint32_t most = run.count;
    for (uint32_t k = 0; k < run.count;) {
      int error = 0;
      uint32_t tried = 0;
      {
        const auto hold = passAlone();
        const auto isOurs = [&](uint32_t at) { return at < run.count && isMissing(run.first + at); };
        if (!isOurs(k)) {
          k++;
          continue;
        }
        uint32_t end = k + 1;
        while (end - k < most && isOurs(end)) end++;
        tried = end - k;
        error = poisonRun(run.first + k, tried);
        if (error == 0) k = end;
      }
      if (error == 0) most = std::min(run.count, most * 2);
      else if (error == EAGAIN || error == EINTR) readEvents();
      // Where one mapping ends and another begins is found by halves.
      else if (tried > 1) most = tried / 2;
      // EEXIST: there already, whoever put it there. Else the memory is not there, or not ours, any more.
      else if (error == EEXIST) set(run.first + k++, kPlain);
      else lose(run.first + k++);
    }
  }
}

/** Over the marker of an armed hole UFFDIO_POISON is EEXIST; and a poisoned page that is not armed is reported by every scan. Nothing is dropped: that would be an event. */
int Residence::poisonRun(uint32_t first, uint32_t count) {
  const size_t length = static_cast<size_t>(count) * kPageSize;
  int error = userfault_->tryProtect(page(first), length, false);
  if (error == 0) error = userfault_->tryPoison(page(first), length);
  if (error != 0) return error;
  try {
    pagemap::written(page(first), length, true);
  } catch (const SystemError&) {
    // Then they are reported, and left out of what is reported.
  }
  for (uint32_t k = 0; k < count; k++) set(first + k, kPoisoned);
  const std::lock_guard<std::mutex> guard(mutex_);
  resolved_.notify_all();
  for (uint32_t k = 0; k < count && !waiting_.empty(); k++) waiting_.erase(first + k);
  return 0;
}

bool Residence::isMissing(uint32_t number) const { return number < pageCount_ && (states_[number] == kMissing || states_[number] == kFilling); }

bool Residence::fetch(const Runs& pages) {
  if (!anyMissing()) return false;
  bool any = false;
  std::vector<uint32_t> some;
  const auto await = [&] {
    if (some.empty()) return;
    any = true;
    {
      const std::lock_guard<std::mutex> guard(mutex_);
      const auto now = Clock::now();
      for (const uint32_t number : some) {
        if (waiting_.emplace(number, now).second) faults_.push_back(number);
      }
    }
    notify_();
    std::unique_lock<std::mutex> lock(mutex_);
    const auto isThere = [&] { return std::none_of(some.begin(), some.end(), [&](uint32_t number) { return isMissing(number); }); };
    while (!isThere()) resolved_.wait_for(lock, kLook);
    some.clear();
  };
  for (const Run& run : pages) {
    for (uint32_t k = 0; k < run.count; k++) {
      if (!isMissing(run.first + k)) continue;
      some.push_back(run.first + k);
      if (some.size() == kFetchedAtOnce) await();
    }
  }
  await();
  return any;
}

void Residence::awaitEvents() { const auto hold = passAlone(); }

void Residence::began() {
  // As above; and no later event may be taken for one of these.
  const auto hold = passAlone();
  began_ = true;
}

void Residence::end() {
  poison({{0, pageCount_}});
}

void Residence::forget(const Runs& pages) {
  const std::lock_guard<std::mutex> guard(mutex_);
  resolved_.notify_all();
  for (const Run& run : pages) {
    for (uint32_t k = 0; k < run.count; k++) {
      if (states_[run.first + k] != kPlain) set(run.first + k, kPlain);
      if (!waiting_.empty()) waiting_.erase(run.first + k);
    }
  }
}

std::vector<uint32_t> Residence::takeFaults() {
  const std::lock_guard<std::mutex> guard(mutex_);
  return std::exchange(faults_, {});
}

void Residence::expect(std::vector<uint32_t> pages) {
  const std::lock_guard<std::mutex> guard(mutex_);
  expected_ = std::move(pages);
}

std::vector<uint32_t> Residence::touched(size_t most) const {
  const std::lock_guard<std::mutex> guard(mutex_);
  std::vector<bool> seen(pageCount_);
  std::vector<uint32_t> result;
  for (const std::vector<uint32_t>* part : {&expected_, &touched_}) {
    for (const uint32_t number : *part) {
      if (number >= pageCount_ || seen[number] || result.size() >= most) continue;
      seen[number] = true;
      result.push_back(number);
    }
  }
  return result;
}

std::vector<uint32_t> Residence::stillMissing(const std::vector<uint32_t>& pages) const {
  std::vector<uint32_t> result;
  for (const uint32_t number : pages) {
    if (number < pageCount_ && states_[number] == kMissing) result.push_back(number);
  }
  return result;
}

std::vector<uint32_t> Residence::missing(uint32_t from, size_t most) const {
  std::vector<uint32_t> found;
  if (!anyMissing()) return found;
  const auto look = [&](uint32_t first, uint32_t end) {
    for (uint32_t k = first; k < end && found.size() < most; k++) {
      if (states_[k].load(std::memory_order_relaxed) == kMissing) found.push_back(k);
    }
  };
  from = std::min(from, pageCount_);
  look(from, pageCount_);
  if (found.empty()) look(0, from);
  return found;
}

Runs Residence::pagesIn(std::initializer_list<State> states) const {
  Runs runs;
  for (uint32_t k = 0; k < pageCount_; k++) {
    const uint8_t state = states_[k].load(std::memory_order_relaxed);
    if (state != kPlain && std::find(states.begin(), states.end(), state) != states.end()) append(runs, k);
  }
  return runs;
}

Runs Residence::absent() const { return pagesIn({kMissing, kFilling, kPoisoned, kLost}); }
Runs Residence::poisoned() const { return anyPoisoned() ? pagesIn({kPoisoned, kLost}) : Runs{}; }

ResidenceStats Residence::stats() {
  ResidenceStats stats;
  stats.missing = missingCount_;
  stats.poisoned = poisonedCount_;
  const std::lock_guard<std::mutex> guard(mutex_);
  stats.faults = faultCount_;
  stats.byFault = byFault_;
  stats.ahead = ahead_;
  stats.worst = worst_;
  stats.waits = waits_;
  return stats;
}

}  // namespace tidemark
