#pragma once
#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <mutex>
#include <optional>
#include <vector>

namespace tidemark::uffd {

/** Memory as it was registered. JavaScript knows it by its number. */
struct Range {
  uint32_t id;
  uint8_t* start;
  size_t length;
  /** UFFDIO_REGISTER_MODE_* */
  uint64_t mode;
  /** Bytes that one fault is about. */
  size_t pageSize;
  /** What the kernel takes for it. */
  uint64_t ioctls;
};

/** A part of a range; `range` 0: of none that is known. */
struct Piece {
  uint32_t range;
  uint64_t offset;
  uint64_t length;
  size_t pageSize;
};

/** What one descriptor has registered, and what lies where. From any thread; held for moments only, for whoever reads events needs it. */
class Ranges {
 public:
  /** The same range again keeps its number, any other that overlaps one is an ArgumentError. 0: it is new. */
  uint32_t known(const uint8_t* start, size_t length) const;
  /** `id` 0 gives it a number. */
  Range put(Range range);
  /** Events about it that were read before still name it: who gets them can tell that it is gone from memory that was never known. */
  void remove(uint32_t id);
  std::optional<Range> find(uint32_t id) const;
  std::vector<Range> all() const;
  /** Addresses as ranges and offsets, in the order of the ranges' numbers; what lies in none is one piece of range 0. */
  std::vector<Piece> pieces(uint64_t start, uint64_t end) const;
  void copyFrom(const Ranges& other);

 private:
  mutable std::mutex mutex_;
  uint32_t nextId_ = 1;
  std::map<uint32_t, Range> ranges_;
  /** The last of those that were removed. */
  std::deque<Range> removed_;
};

}  // namespace tidemark::uffd
