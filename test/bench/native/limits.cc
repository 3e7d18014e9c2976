// What the machine can do when dirty pages are found and copied, without the library.
// Usage: limits MEBIBYTES SHARE ROUNDS THREADS; prints one line of JSON with an array of rounds for each figure, in milliseconds (touchNs: nanoseconds a page).
#include <cstring>

#include "support.h"
#include "write_faults.h"

int main(int argc, char** argv) {
  check(argc == 5, "usage");
  const size_t bytes = strtoull(argv[1], nullptr, 10) << 20;
  const size_t pages = bytes / kPage;
  const size_t dirty = static_cast<size_t>(static_cast<double>(pages) * atof(argv[2]));
  const int rounds = atoi(argv[3]);
  const unsigned threads = static_cast<unsigned>(atoi(argv[4]));
  uint8_t* memory = map(bytes);
  uint8_t* copy = map(bytes);
  memset(memory, 1, bytes);
  memset(copy, 1, bytes);
  WriteFaults faults(memory, bytes);
  faults.arm();
  std::vector<double> scans, scanCopies, copies, copiesOnAll, touches;
  uint64_t seed = 42;
  for (int round = 0; round < rounds; round++) {
    for (size_t k = 0; k < dirty; k++) {
      seed = seed * 6364136223846793005u + 1442695040888963407u;
      memory[(seed >> 33) % pages * kPage + 64] = static_cast<uint8_t>(round);
    }
    auto start = Clock::now();
    const size_t count = faults.scan();
    scans.push_back(since(start));
    uint8_t* to = copy;
    for (size_t k = 0; k < count; k++) {
      const page_region& range = faults.ranges()[k];
      memcpy(to, reinterpret_cast<void*>(range.start), range.end - range.start);
      to += range.end - range.start;
    }
    scanCopies.push_back(since(start));
    start = Clock::now();
    memcpy(copy, memory, bytes);
    copies.push_back(since(start));
    start = Clock::now();
    const size_t part = bytes / threads;
    runParallel(threads, threads, [&](size_t k) { memcpy(copy + k * part, memory + k * part, part); });
    copiesOnAll.push_back(since(start));
    // The first write to every page: what tracking costs the program, in the kernel.
    start = Clock::now();
    for (size_t at = 0; at < bytes; at += kPage) static_cast<volatile uint8_t*>(memory)[at] = static_cast<uint8_t>(round);
    touches.push_back(since(start) * 1e6 / static_cast<double>(pages));
    faults.scan();
  }
  printf("{");
  printArray("scan", scans, ",");
  printArray("scanCopy", scanCopies, ",");
  printArray("copy", copies, ",");
  printArray("copyOnAll", copiesOnAll, ",");
  printArray("touchNs", touches, "}\n");
}
