#include "assemble.h"

#include <cstring>
#include <mutex>

#include "copy.h"
#include "errors.h"
#include "pagemap.h"

namespace tidemark {

namespace {
constexpr size_t kStripes = 64;

/** Two deltas of one page may be decoded at the same time, and XOR is no atomic operation on a page. */
std::mutex& lockOf(const uint8_t* target) {
  static std::mutex* locks = new std::mutex[kStripes];
  return locks[reinterpret_cast<uintptr_t>(target) / kPageSize % kStripes];
}
}  // namespace

Window windowOf(const Args& args, size_t index) {
  return {args.bytes(index + 1, "staging"), args.int32s(index + 2, "segments"), args.uint32s(index, "places")};
}

std::vector<uint8_t*> Window::targets(size_t count) const {
  const auto fail = [](const char* message) { throw ArgumentError(ArgumentError::kRange, message); };
  if (places.size() < count) fail("places must hold one for each page");
  std::vector<uint8_t*> result(count);
  for (size_t k = 0; k < count; k++) {
    const size_t number = places[k] / kSegmentPages;
    if (number >= segments.size() || segments[number] < 0) fail("places must lie within the segments");
    const size_t start = static_cast<size_t>(segments[number]) * kSegmentStride;
    const size_t at = start + kSegmentHeadroom + places[k] % kSegmentPages * kPageSize;
    // The last segment may be cut off behind the last page.
    if (at + kPageSize > staging.length) fail("segments must lie within staging");
    result[k] = staging.data + at;
  }
  return result;
}

void combinePages(const uint8_t* source, const std::vector<uint8_t*>& targets) {
  for (size_t k = 0; k < targets.size(); k++) {
    const std::lock_guard<std::mutex> guard(lockOf(targets[k]));
    uint64_t* target = reinterpret_cast<uint64_t*>(targets[k]);
    const uint8_t* from = source + k * kPageSize;
    for (size_t word = 0; word < kPageSize / 8; word++) {
      uint64_t value;
      memcpy(&value, from + word * 8, 8);
      target[word] ^= value;
    }
  }
}

}  // namespace tidemark
