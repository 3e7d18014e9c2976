// zstd decompression and UFFDIO_COPY on all threads, without the library: what a restore into fresh memory cannot be faster than.
// Usage: restore-limit FRAMES ROUNDS THREADS; FRAMES has frames of 64 KiB of memory, each behind its length (32 bits). Prints one line of JSON, in milliseconds.
#include <atomic>
#include <cstring>

#include "common.h"
#include "zstd.h"

int main(int argc, char** argv) {
  check(argc == 4, "usage");
  FILE* file = fopen(argv[1], "rb");
  check(file != nullptr, argv[1]);
  std::vector<std::vector<uint8_t>> frames;
  for (uint32_t length; fread(&length, sizeof length, 1, file) == 1;) {
    frames.emplace_back(length);
    check(fread(frames.back().data(), 1, length, file) == length, "fread");
  }
  fclose(file);
  const int rounds = atoi(argv[2]);
  const unsigned threads = static_cast<unsigned>(atoi(argv[3]));
  const size_t bytes = frames.size() * kFrame;
  std::vector<double> both, decompressions, copies;
  for (int round = 0; round < rounds; round++) {
    for (int what = 0; what < 3; what++) {
      uint8_t* memory = map(bytes);
      const int fd = track(memory, bytes);
      std::atomic<size_t> next{0};
      const auto start = Clock::now();
      onAll(threads, [&](unsigned) {
        ZSTD_DCtx* context = ZSTD_createDCtx();
        std::vector<uint8_t> frame(kFrame, 1);
        for (size_t k; (k = next++) < frames.size();) {
          if (what != 2) check(ZSTD_decompressDCtx(context, frame.data(), kFrame, frames[k].data(), frames[k].size()) == kFrame, "ZSTD_decompressDCtx");
          if (what == 1) continue;
          uffdio_copy fill{reinterpret_cast<uint64_t>(memory) + k * kFrame, reinterpret_cast<uint64_t>(frame.data()), kFrame, UFFDIO_COPY_MODE_WP, 0};
          // EAGAIN: another thread maps or unmaps something.
          while (ioctl(fd, UFFDIO_COPY, &fill) != 0) {
            check(errno == EAGAIN, "UFFDIO_COPY");
            if (fill.copy > 0) fill.dst += fill.copy, fill.src += fill.copy, fill.len -= fill.copy;
          }
        }
        ZSTD_freeDCtx(context);
      });
      (what == 0 ? both : what == 1 ? decompressions : copies).push_back(since(start));
      close(fd);
      munmap(memory, bytes);
    }
  }
  printf("{");
  printArray("both", both, ",");
  printArray("decompress", decompressions, ",");
  printArray("fill", copies, "}\n");
}
