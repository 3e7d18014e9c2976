// zstd decompression and UFFDIO_COPY on all threads, without the library: what a restore into fresh memory cannot be faster than.
// Usage: restore-limit FRAMES THREADS; FRAMES has frames of 64 KiB of memory, each behind its length (32 bits). Prints one line of JSON, in milliseconds.
#include <atomic>
#include <cstring>

#include "support.h"
#include "write_faults.h"
#include "zstd.h"

constexpr size_t kFrame = 65536;

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
  printf("{\"both\":%.4f,\"decompress\":%.4f,\"fill\":%.4f}\n", both, decompress, fill);
}
