#include "crc32c.h"

#include <cstring>

#include "pagemap.h"

#if defined(__x86_64__)
#include <nmmintrin.h>
#define TIDEMARK_CRC_TARGET __attribute__((target("sse4.2")))
#define TIDEMARK_CRC_STEP8(crc, word) static_cast<uint32_t>(_mm_crc32_u64(crc, word))
#define TIDEMARK_CRC_STEP1(crc, byte) _mm_crc32_u8(crc, byte)
#elif defined(__aarch64__)
#include <sys/auxv.h>
#ifndef HWCAP_CRC32
#define HWCAP_CRC32 (1 << 7)
#endif
#define TIDEMARK_CRC_TARGET __attribute__((target("+crc")))
#define TIDEMARK_CRC_STEP8(crc, word) __builtin_aarch64_crc32cx(crc, word)
#define TIDEMARK_CRC_STEP1(crc, byte) __builtin_aarch64_crc32cb(crc, byte)
#endif

namespace tidemark {

namespace {
constexpr uint32_t kPolynomial = 0x82f63b78;

uint64_t load(const uint8_t* data) {
  uint64_t word;
  memcpy(&word, data, sizeof word);
  return word;
}

/** Slicing by 8, for processors without the instruction. */
struct Software {
  uint32_t table[8][256];
  Software() {
    for (uint32_t i = 0; i < 256; i++) {
      uint32_t crc = i;
      for (int bit = 0; bit < 8; bit++) crc = (crc >> 1) ^ (crc & 1 ? kPolynomial : 0);
      table[0][i] = crc;
    }
    for (uint32_t i = 0; i < 256; i++) {
      for (int k = 1; k < 8; k++) table[k][i] = (table[k - 1][i] >> 8) ^ table[0][table[k - 1][i] & 0xff];
    }
  }
  uint32_t run(uint32_t crc, const uint8_t* data, size_t length) const {
    for (; length >= 8; data += 8, length -= 8) {
      uint32_t next = 0;
      const uint32_t low = crc ^ (data[0] | data[1] << 8 | data[2] << 16 | static_cast<uint32_t>(data[3]) << 24);
      for (int k = 0; k < 4; k++) next ^= table[7 - k][(low >> (8 * k)) & 0xff];
      for (int k = 4; k < 8; k++) next ^= table[7 - k][data[k]];
      crc = next;
    }
    for (; length > 0; data++, length--) crc = (crc >> 8) ^ table[0][(crc ^ *data) & 0xff];
    return crc;
  }
};

const Software& software() {
  static const Software instance;
  return instance;
}

#ifdef TIDEMARK_CRC_TARGET
bool hasInstruction() {
#if defined(__x86_64__)
  static const bool has = __builtin_cpu_supports("sse4.2");
#else
  static const bool has = (getauxval(AT_HWCAP) & HWCAP_CRC32) != 0;
#endif
  return has;
}

/** What `length` zero bytes make of a checksum, which is linear in its bits: a table for each of its bytes. */
struct Shift {
  uint32_t table[4][256];
  explicit Shift(size_t length) {
    uint32_t bits[32];
    for (int bit = 0; bit < 32; bit++) {
      bits[bit] = 1u << bit;
      for (size_t i = 0; i < length; i++) bits[bit] = (bits[bit] >> 8) ^ software().table[0][bits[bit] & 0xff];
    }
    for (int k = 0; k < 4; k++) {
      for (uint32_t value = 0; value < 256; value++) {
        uint32_t crc = 0;
        for (int bit = 0; bit < 8; bit++) {
          if (value & (1u << bit)) crc ^= bits[8 * k + bit];
        }
        table[k][value] = crc;
      }
    }
  }
  uint32_t operator()(uint32_t crc) const { return table[0][crc & 0xff] ^ table[1][(crc >> 8) & 0xff] ^ table[2][(crc >> 16) & 0xff] ^ table[3][crc >> 24]; }
};

/** The instruction takes three cycles and a new one starts in each: three streams at once keep it busy. */
TIDEMARK_CRC_TARGET inline void threeStreams(uint32_t* crcs, const uint8_t* a, const uint8_t* b, const uint8_t* c, size_t length) {
  uint32_t x = crcs[0];
  uint32_t y = crcs[1];
  uint32_t z = crcs[2];
  for (size_t at = 0; at < length; at += 8) {
    x = TIDEMARK_CRC_STEP8(x, load(a + at));
    y = TIDEMARK_CRC_STEP8(y, load(b + at));
    z = TIDEMARK_CRC_STEP8(z, load(c + at));
  }
  crcs[0] = x;
  crcs[1] = y;
  crcs[2] = z;
}

TIDEMARK_CRC_TARGET uint32_t hardware(uint32_t crc, const uint8_t* data, size_t length) {
  constexpr size_t kStream = 1024;
  static const Shift shift(kStream);
  for (; length >= 3 * kStream; data += 3 * kStream, length -= 3 * kStream) {
    uint32_t crcs[3] = {crc, 0, 0};
    threeStreams(crcs, data, data + kStream, data + 2 * kStream, kStream);
    crc = shift(shift(crcs[0]) ^ crcs[1]) ^ crcs[2];
  }
  for (; length >= 8; data += 8, length -= 8) crc = TIDEMARK_CRC_STEP8(crc, load(data));
  for (; length > 0; data++, length--) crc = TIDEMARK_CRC_STEP1(crc, *data);
  return crc;
}
#endif
}  // namespace

uint32_t crc32c(uint32_t crc, const uint8_t* data, size_t length) {
#ifdef TIDEMARK_CRC_TARGET
  if (hasInstruction()) return ~hardware(~crc, data, length);
#endif
  return ~software().run(~crc, data, length);
}

void crc32cPages(const uint8_t* data, size_t pages, uint32_t* out) {
  size_t done = 0;
#ifdef TIDEMARK_CRC_TARGET
  if (hasInstruction()) {
    // Three pages are three streams that need not be put together.
    for (; done + 3 <= pages; done += 3) {
      uint32_t crcs[3] = {~0u, ~0u, ~0u};
      const uint8_t* from = data + done * kPageSize;
      threeStreams(crcs, from, from + kPageSize, from + 2 * kPageSize, kPageSize);
      for (int i = 0; i < 3; i++) out[done + i] = ~crcs[i];
    }
  }
#endif
  for (; done < pages; done++) out[done] = crc32c(0, data + done * kPageSize, kPageSize);
}

}  // namespace tidemark
