#pragma once
#include <cstdint>
#include <string>

#include "args.h"

namespace tidemark {

/** What is in the record cannot be; becomes a string, not an exception: lib/chain says which record. */
struct Damage {
  std::string what;
};

constexpr uint64_t kMaxSafe = (uint64_t{1} << 53) - 1;
/** A version has 48 bits for it. */
constexpr int64_t kMaxRecord = (int64_t{1} << 48) - 1;
constexpr uint64_t kMaxPages = uint64_t{1} << 32;

/** As lib/chain/bytes.ts reads it. */
class FieldReader {
 public:
  FieldReader(Span<uint8_t> bytes, size_t at) : bytes_(bytes), at_(at) {}

  size_t at() const { return at_; }
  size_t remaining() const { return bytes_.length - at_; }

  uint8_t u8() {
    if (remaining() == 0) throw Damage{"ends in the middle of a field"};
    return bytes_.data[at_++];
  }

  uint64_t varint() {
    uint64_t value = 0;
    for (int shift = 0; shift < 56; shift += 7) {
      const uint8_t byte = u8();
      value |= static_cast<uint64_t>(byte & 0x7f) << shift;
      if (byte < 0x80) {
        if (value > kMaxSafe) break;
        return value;
      }
    }
    throw Damage{"holds a number that is too large"};
  }

  int64_t zigzag() {
    const uint64_t value = varint();
    return value % 2 == 0 ? static_cast<int64_t>(value / 2) : -static_cast<int64_t>((value + 1) / 2);
  }

 private:
  const Span<uint8_t> bytes_;
  size_t at_;
};

}  // namespace tidemark
