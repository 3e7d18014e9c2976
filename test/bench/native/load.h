#pragma once
// Load D as `Records` in support/data.ts makes it, byte for byte, and a sum over the memory that proves it.
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

#include "support.h"

/** Records of 64 bytes: counter, time, numbers, text, 6 random bytes. */
class Records {
 public:
  void fill(uint8_t* memory, size_t bytes) {
    for (size_t at = 0; at < bytes; at += kRecord) write(memory + at);
  }

  /** Rewrites one record in each of `count` different pages at random. */
  void touch(uint8_t* memory, size_t pages, size_t count) {
    touched_.assign(pages, 0);
    for (size_t k = 0; k < count;) {
      const size_t page = below(pages);
      if (touched_[page]) continue;
      touched_[page] = 1;
      write(memory + page * kPage + below(kPage / kRecord) * kRecord);
      k++;
    }
  }

 private:
  static constexpr size_t kRecord = 64;
  uint32_t counter_ = 0;
  uint32_t seed_ = 42;

  std::vector<uint8_t> touched_;

  uint32_t random() { return seed_ = seed_ * 1664525u + 1013904223u; }
  /** Of the high bits: the low ones of this generator repeat soon. */
  size_t below(size_t end) { return static_cast<size_t>(random() / 4294967296.0 * static_cast<double>(end)); }

  template <typename T>
  static void put(uint8_t* at, T value) {
    memcpy(at, &value, sizeof value);
  }

  void write(uint8_t* at) {
    static const char text[] = "the quick brown fox jumps";
    const uint32_t n = ++counter_;
    put<uint32_t>(at, n);
    put<uint32_t>(at + 4, 0);
    put<double>(at + 8, 1790000000000.0 + n);
    put<uint32_t>(at + 16, n % 1000);
    put<uint32_t>(at + 20, static_cast<uint32_t>(uint64_t{n} * 7 % 5000));
    memcpy(at + 24, text, sizeof text - 1);
    const uint32_t r = random();
    put<uint32_t>(at + 52, r);
    put<uint16_t>(at + 56, static_cast<uint16_t>(r >> 7));
  }
};

/** FNV-1a over 32-bit words, word k in lane k % 4; as `sumOf` in peers/sum.ts. A word that differs always changes its lane. */
inline std::string sumOf(const uint8_t* memory, size_t bytes) {
  uint32_t lanes[4] = {0x811c9dc5, 0x811c9dc5, 0x811c9dc5, 0x811c9dc5};
  for (size_t at = 0; at < bytes; at += sizeof lanes) {
    uint32_t words[4];
    memcpy(words, memory + at, sizeof words);
    for (int lane = 0; lane < 4; lane++) lanes[lane] = (lanes[lane] ^ words[lane]) * 0x01000193u;
  }
  char text[33];
  snprintf(text, sizeof text, "%08x%08x%08x%08x", lanes[0], lanes[1], lanes[2], lanes[3]);
  return text;
}
