#include "copy.h"

#include <algorithm>
#include <cstring>

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

#include "pool.h"

namespace tidemark {

bool isZero(const uint8_t* page) {
  // Most pages that are not zero say so in their first word.
  uint64_t first;
  memcpy(&first, page, sizeof first);
  if (first != 0) return false;
  for (size_t at = 0; at < kPageSize; at += 256) {
    // A loop of fixed length that the compiler turns into vector instructions.
    uint64_t words[32];
    memcpy(words, page + at, sizeof words);
    uint64_t any = 0;
    for (const uint64_t word : words) any |= word;
    if (any != 0) return false;
  }
  return true;
}

namespace {
/** Below this another thread takes longer to wake than to help. */
constexpr uint64_t kParallelPages = (2 << 20) / kPageSize;

/**
 * From here on what is copied would not stay in the caches anyway: it is written past them, which spares reading what is overwritten. (512 MiB, page by page
 * on two cores: 48 ms, past the caches 36 ms, four pages at a time 28 ms, as one memcpy of the C library takes.)
 */
constexpr uint64_t kStreamedPages = (32 << 20) / kPageSize;
constexpr size_t kLineBytes = 64;
/** Pages that are streamed at a time: the processor reads ahead within a page, not into the next. */
constexpr uint32_t kAbreast = 4;

void copyInRow(uint8_t* target, const uint8_t* const* pages, uint32_t count) {
  for (uint32_t k = 0; k < count; k++) memcpy(target + k * kPageSize, pages[k], kPageSize);
}

#if defined(__SSE2__)
/** `target` at the beginning of a cache line. */
void streamInRow(uint8_t* target, const uint8_t* const* pages, uint32_t count) {
  constexpr size_t kLine = kLineBytes / sizeof(__m128i);
  uint32_t first = 0;
  for (; first + kAbreast <= count; first += kAbreast) {
    for (size_t line = 0; line < kPageSize / sizeof(__m128i); line += kLine) {
      for (uint32_t k = first; k < first + kAbreast; k++) {
        const auto* from = reinterpret_cast<const __m128i*>(pages[k]) + line;
        auto* to = reinterpret_cast<__m128i*>(target + k * kPageSize) + line;
        __m128i words[kLine];
        for (size_t w = 0; w < kLine; w++) words[w] = _mm_load_si128(from + w);
        for (size_t w = 0; w < kLine; w++) _mm_stream_si128(to + w, words[w]);
      }
    }
  }
  // Before whatever tells another thread of them.
  _mm_sfence();
  copyInRow(target + first * kPageSize, pages + first, count - first);
}
#else
constexpr auto streamInRow = copyInRow;
#endif

/** Where the dirty pages of one segment begin. */
struct Chunk {
  size_t run;
  uint32_t offset;
  uint32_t count;
};

void copyChunk(const uint8_t* memory, const Runs& runs, const Chunk& chunk, bool streams, uint8_t* target, uint32_t* pages, uint32_t* counts) {
  const uint8_t* sources[kSegmentPages];
  uint32_t zeros[kSegmentPages];
  uint32_t zeroCount = 0;
  uint32_t copied = 0;
  size_t run = chunk.run;
  uint32_t offset = chunk.offset;
  for (uint32_t i = 0; i < chunk.count; i++) {
    while (offset == runs[run].count) {
      run++;
      offset = 0;
    }
    const uint32_t number = runs[run].first + offset++;
    const uint8_t* page = memory + number * kPageSize;
    if (isZero(page)) {
      zeros[zeroCount++] = number;
    } else {
      sources[copied] = page;
      pages[copied++] = number;
    }
  }
  (streams ? streamInRow : copyInRow)(target, sources, copied);
  memcpy(pages + copied, zeros, zeroCount * sizeof *zeros);
  counts[0] = copied;
  counts[1] = zeroCount;
}

/** Cuts the dirty pages from number `skip` on into chunks of a segment each, `limit` of them at most. */
std::vector<Chunk> cut(const Runs& runs, uint64_t skip, size_t limit) {
  std::vector<Chunk> chunks;
  size_t run = 0;
  while (run < runs.size() && skip >= runs[run].count) skip -= runs[run++].count;
  uint32_t offset = static_cast<uint32_t>(skip);
  while (run < runs.size() && chunks.size() < limit) {
    Chunk chunk{run, offset, 0};
    while (run < runs.size() && chunk.count < kSegmentPages) {
      const uint32_t take = std::min<uint32_t>(runs[run].count - offset, kSegmentPages - chunk.count);
      chunk.count += take;
      offset += take;
      if (offset == runs[run].count) {
        run++;
        offset = 0;
      }
    }
    chunks.push_back(chunk);
  }
  return chunks;
}
}  // namespace

uint64_t copyPages(const uint8_t* memory, const Runs& runs, uint64_t skip, const CopyTarget& target, size_t threads) {
  const std::vector<Chunk> chunks = cut(runs, skip, target.segments.size());
  uint64_t consumed = 0;
  for (const Chunk& chunk : chunks) consumed += chunk.count;
  for (size_t k = chunks.size(); k < target.segments.size(); k++) target.counts[2 * k] = target.counts[2 * k + 1] = 0;
  const bool isAligned = reinterpret_cast<uintptr_t>(target.staging) % kLineBytes == 0;
  const bool streams = isAligned && consumed >= kStreamedPages;
  runParallel(chunks.size(), consumed <= kParallelPages ? 1 : threads, [&](size_t k) {
    uint8_t* segment = target.staging + static_cast<size_t>(target.segments[k]) * kSegmentStride;
    copyChunk(memory, runs, chunks[k], streams, segment + kSegmentHeadroom, target.pages + k * kSegmentPages, target.counts + 2 * k);
  });
  return consumed;
}

}  // namespace tidemark
