#include "ring.h"

#include <algorithm>
#include <chrono>

#include "errors.h"
#include "registry.h"

namespace tidemark {

namespace {
using Clock = std::chrono::steady_clock;
constexpr auto kSlice = std::chrono::milliseconds(50);

Registry<Ring>& rings() {
  static Registry<Ring>& instance = *new Registry<Ring>();
  return instance;
}
}  // namespace

uint32_t Ring::create(uint32_t segments) {
  return rings().add([segments](uint32_t id) { return std::make_shared<Ring>(id, segments); });
}

std::shared_ptr<Ring> Ring::find(uint32_t id, bool closedIsFine) {
  std::shared_ptr<Ring> ring = rings().find(id);
  if (ring == nullptr && !(closedIsFine && rings().known(id))) throw closedError("ring", id);
  return ring;
}

void Ring::close(uint32_t id) {
  const std::shared_ptr<Ring> ring = rings().remove(id);
  if (ring == nullptr) return;
  const std::lock_guard<std::mutex> guard(ring->mutex_);
  ring->closed_ = true;
  ring->released_.notify_all();
}

void Ring::kill(uint32_t id) {
  const std::shared_ptr<Ring> ring = rings().find(id);
  if (ring == nullptr) return;
  const std::lock_guard<std::mutex> guard(ring->mutex_);
  ring->dead_ = true;
  ring->released_.notify_all();
}

std::vector<int32_t> Ring::acquire(uint32_t want, uint32_t stallMs, const std::function<bool()>& mayWait) {
  std::unique_lock<std::mutex> lock(mutex_);
  const auto check = [this] {
    if (closed_) throw closedError("ring", id_);
    if (dead_) throw CodedError("ERR_DEAD", "a thread that serves ring " + std::to_string(id_) + " has ended");
  };
  check();
  uint64_t seen = releases_;
  auto deadline = Clock::now() + std::chrono::milliseconds(stallMs);
  while (freeCount_ == 0) {
    waiting_++;
    released_.wait_until(lock, std::min(deadline, Clock::now() + kSlice));
    waiting_--;
    check();
    if (freeCount_ > 0) break;
    if (releases_ != seen) {
      // Somebody else was faster, but things move.
      seen = releases_;
      deadline = Clock::now() + std::chrono::milliseconds(stallMs);
    }
    if (Clock::now() >= deadline) {
      throw CodedError("ERR_STALLED", "no staging segment of ring " + std::to_string(id_) + " was released for " + std::to_string(stallMs) + " ms");
    }
    waiting_++;
    lock.unlock();
    const bool goOn = mayWait();
    lock.lock();
    waiting_--;
    check();
    if (!goOn) return {};
  }
  std::vector<int32_t> taken;
  for (; freeCount_ > 0 && taken.size() < want; lowest_++) {
    if (!free_[lowest_]) continue;
    free_[lowest_] = false;
    freeCount_--;
    taken.push_back(static_cast<int32_t>(lowest_));
  }
  return taken;
}

void Ring::release(const std::vector<int32_t>& segments) {
  const std::lock_guard<std::mutex> guard(mutex_);
  for (const int32_t segment : segments) {
    if (segment < 0 || static_cast<size_t>(segment) >= free_.size()) throw ArgumentError(ArgumentError::kRange, "segments must belong to the ring");
  }
  for (const int32_t segment : segments) {
    if (free_[segment]) continue;
    free_[segment] = true;
    freeCount_++;
    lowest_ = std::min(lowest_, static_cast<size_t>(segment));
    releases_++;
  }
  released_.notify_all();
}

size_t Ring::free() {
  const std::lock_guard<std::mutex> guard(mutex_);
  return freeCount_;
}

bool Ring::starved() {
  const std::lock_guard<std::mutex> guard(mutex_);
  return waiting_ > 0;
}

}  // namespace tidemark
