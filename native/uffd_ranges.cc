#include "uffd_ranges.h"

#include <algorithm>

#include "errors.h"

namespace tidemark::uffd {

namespace {
/** Events lag behind by microseconds. */
constexpr size_t kMaxRemoved = 256;

std::optional<Piece> pieceOf(const Range& range, uint64_t start, uint64_t end) {
  const uint64_t first = reinterpret_cast<uintptr_t>(range.start);
  const uint64_t from = std::max(start, first);
  const uint64_t to = std::min(end, first + range.length);
  if (from >= to) return std::nullopt;
  return Piece{range.id, from - first, to - from, range.pageSize};
}
}  // namespace

uint32_t Ranges::known(const uint8_t* start, size_t length) const {
  const std::lock_guard<std::mutex> guard(mutex_);
  for (const auto& [id, range] : ranges_) {
    if (range.start == start && range.length == length) return id;
    if (start < range.start + range.length && range.start < start + length) {
      throw ArgumentError(ArgumentError::kRange, "the memory overlaps memory that is registered already: unregister that first, or register exactly the same again");
    }
  }
  return 0;
}

Range Ranges::put(Range range) {
  const std::lock_guard<std::mutex> guard(mutex_);
  if (range.id == 0) range.id = nextId_;
  nextId_ = std::max(nextId_, range.id + 1);
  ranges_.insert_or_assign(range.id, range);
  return range;
}

void Ranges::remove(uint32_t id) {
  const std::lock_guard<std::mutex> guard(mutex_);
  const auto found = ranges_.find(id);
  if (found == ranges_.end()) return;
  removed_.push_front(found->second);
  if (removed_.size() > kMaxRemoved) removed_.pop_back();
  ranges_.erase(found);
}

std::optional<Range> Ranges::find(uint32_t id) const {
  const std::lock_guard<std::mutex> guard(mutex_);
  const auto found = ranges_.find(id);
  return found == ranges_.end() ? std::nullopt : std::optional<Range>(found->second);
}

std::vector<Range> Ranges::all() const {
  const std::lock_guard<std::mutex> guard(mutex_);
  std::vector<Range> result;
  for (const auto& [id, range] : ranges_) result.push_back(range);
  return result;
}

std::vector<Piece> Ranges::pieces(uint64_t start, uint64_t end) const {
  const std::lock_guard<std::mutex> guard(mutex_);
  std::vector<Piece> result;
  for (const auto& [id, range] : ranges_) {
    if (const auto piece = pieceOf(range, start, end)) result.push_back(*piece);
  }
  for (auto range = removed_.begin(); result.empty() && range != removed_.end(); ++range) {
    if (const auto piece = pieceOf(*range, start, end)) result.push_back(*piece);
  }
  if (result.empty()) result.push_back({0, 0, end - start, 1});
  return result;
}

void Ranges::copyFrom(const Ranges& other) {
  for (const Range& range : other.all()) put(range);
}

}  // namespace tidemark::uffd
