// zstd decompression and UFFDIO_COPY on all threads, without the library: what a restore into fresh memory cannot be faster than.
// Usage: restore-limit FRAMES THREADS; FRAMES has frames of 64 KiB of memory, each behind its length (32 bits). Prints one line of JSON, in milliseconds.
#include <algorithm>
#include <atomic>
#include <cstring>

#include "support.h"
#include "write_faults.h"
#include "zstd.h"

constexpr size_t kFrame = 65536;
/** Frames in an extent, and how many extents are tried. */
constexpr size_t kExtentFrames = 16;
constexpr size_t kExtents = 200;

int main(int argc, char** argv) {
  check(argc == 3, "usage");
  FILE* file = fopen(argv[1], "rb");
  check(file != nullptr, argv[1]);
  std::vector<std::vector<uint8_t>> frames;
  for (uint32_t length; fread(&length, sizeof length, 1, file) == 1;) {
    frames.emplace_back(length);
    check(fread(frames.back().data(), 1, length, file) == length, "fread");
  }
  fclose(file);
  const unsigned threads = static_cast<unsigned>(atoi(argv[2]));
  const size_t bytes = frames.size() * kFrame;
  const auto measure = [&](bool decompresses, bool fillsToo) {
    uint8_t* memory = map(bytes);
    double spent;
    {
      const WriteFaults faults(memory, bytes);
      faults.arm();
      std::atomic<size_t> next{0};
      const auto start = Clock::now();
      runParallel(threads, threads, [&](size_t) {
        ZSTD_DCtx* context = ZSTD_createDCtx();
        std::vector<uint8_t> frame(kFrame, 1);
        for (size_t k; (k = next++) < frames.size();) {
          if (decompresses) check(ZSTD_decompressDCtx(context, frame.data(), kFrame, frames[k].data(), frames[k].size()) == kFrame, "ZSTD_decompressDCtx");
          if (fillsToo) faults.fill(k * kFrame, frame.data(), kFrame);
        }
        ZSTD_freeDCtx(context);
      });
      spent = since(start);
    }
    munmap(memory, bytes);
    return spent;
  };
  const double both = measure(true, true);
  const double decompress = measure(true, false);
  const double fill = measure(false, true);
  printf("{\"both\":%.4f,\"decompress\":%.4f,\"fill\":%.4f,\"extents\":[", both, decompress, fill);
  // One extent after the other, at random: what a fault is compared with.
  const size_t extents = frames.size() / kExtentFrames;
  uint8_t* memory = map(bytes);
  const WriteFaults faults(memory, bytes);
  faults.arm();
  ZSTD_DCtx* context = ZSTD_createDCtx();
  std::vector<uint8_t> pages(kExtentFrames * kFrame, 1);
  std::vector<size_t> order(extents);
  for (size_t k = 0; k < extents; k++) order[k] = k;
  uint32_t seed = 7;
  for (size_t k = 0; k < std::min<size_t>(extents, kExtents); k++) {
    seed = seed * 1664525 + 1013904223;
    std::swap(order[k], order[k + seed % (extents - k)]);
    const auto start = Clock::now();
    for (size_t j = 0; j < kExtentFrames; j++) {
      const std::vector<uint8_t>& frame = frames[order[k] * kExtentFrames + j];
      check(ZSTD_decompressDCtx(context, pages.data() + j * kFrame, kFrame, frame.data(), frame.size()) == kFrame, "ZSTD_decompressDCtx");
    }
    faults.fill(order[k] * kExtentFrames * kFrame, pages.data(), kExtentFrames * kFrame);
    printf("%s%.4f", k == 0 ? "" : ",", since(start));
  }
  ZSTD_freeDCtx(context);
  printf("]}\n");
}
