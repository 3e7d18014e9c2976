#pragma once
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>

namespace tidemark {

/** Things that JavaScript names by a number, process-wide; a number is never given again. From any thread. */
template <typename T>
class Registry {
 public:
  /** `make` is told the number. */
  template <typename Make>
  uint32_t add(Make&& make) {
    const std::lock_guard<std::mutex> guard(mutex_);
    all_.emplace(nextId_, make(nextId_));
    return nextId_++;
  }

  /** Null where there is none, or not any more. */
  std::shared_ptr<T> find(uint32_t id) {
    const std::lock_guard<std::mutex> guard(mutex_);
    const auto found = all_.find(id);
    return found == all_.end() ? nullptr : found->second;
  }

  /** The same, and nobody finds it from now on. */
  std::shared_ptr<T> remove(uint32_t id) {
    const std::lock_guard<std::mutex> guard(mutex_);
    const auto found = all_.find(id);
    if (found == all_.end()) return nullptr;
    const std::shared_ptr<T> thing = found->second;
    all_.erase(found);
    return thing;
  }

  /** Whether the number was ever given. */
  bool known(uint32_t id) {
    const std::lock_guard<std::mutex> guard(mutex_);
    return id > 0 && id < nextId_;
  }

 private:
  std::mutex mutex_;
  uint32_t nextId_ = 1;
  std::map<uint32_t, std::shared_ptr<T>> all_;
};

}  // namespace tidemark
