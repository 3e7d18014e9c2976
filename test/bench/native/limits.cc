// What the machine can do, measured without the library: the limits that the benchmark sets the library's figures beside.
// Usage: limits MEBIBYTES SHARE ROUNDS; prints one line of JSON with medians.
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

// Headers older than Linux 6.7 lack these.
#ifndef UFFD_FEATURE_WP_UNPOPULATED
#define UFFD_FEATURE_WP_UNPOPULATED (1 << 13)
#endif
#ifndef UFFD_FEATURE_WP_ASYNC
#define UFFD_FEATURE_WP_ASYNC (1 << 15)
#endif
struct PageRegion {
  uint64_t start, end, categories;
};
struct ScanArguments {
  uint64_t size, flags, start, end, walkEnd, vector, vectorLength, maxPages, inverted, mask, anyof, returned;
};
constexpr unsigned long kPagemapScan = _IOWR('f', 16, ScanArguments);
constexpr uint64_t kWritten = 1 << 1, kWpMatching = 1 << 0, kCheckWpAsync = 1 << 1;
constexpr size_t kPage = 4096;

using Clock = std::chrono::steady_clock;

double since(Clock::time_point start) { return std::chrono::duration<double, std::milli>(Clock::now() - start).count(); }

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

void check(bool ok, const char* what) {
  if (ok) return;
  perror(what);
  exit(1);
}

uint8_t* map(size_t bytes) {
  void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  check(memory != MAP_FAILED, "mmap");
  madvise(memory, bytes, MADV_NOHUGEPAGE);
  return static_cast<uint8_t*>(memory);
}

int userfault(uint8_t* memory, size_t bytes) {
  int device = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);
  int fd = device >= 0 ? ioctl(device, USERFAULTFD_IOC_NEW, O_CLOEXEC) : static_cast<int>(syscall(SYS_userfaultfd, O_CLOEXEC | 1));
  check(fd >= 0, "userfaultfd");
  uffdio_api api{UFFD_API, UFFD_FEATURE_PAGEFAULT_FLAG_WP | UFFD_FEATURE_WP_UNPOPULATED | UFFD_FEATURE_WP_ASYNC, 0};
  check(ioctl(fd, UFFDIO_API, &api) == 0, "UFFDIO_API");
  uffdio_register registration{{reinterpret_cast<uint64_t>(memory), bytes}, UFFDIO_REGISTER_MODE_WP, 0};
  check(ioctl(fd, UFFDIO_REGISTER, &registration) == 0, "UFFDIO_REGISTER");
  uffdio_writeprotect protect{{reinterpret_cast<uint64_t>(memory), bytes}, UFFDIO_WRITEPROTECT_MODE_WP};
  check(ioctl(fd, UFFDIO_WRITEPROTECT, &protect) == 0, "UFFDIO_WRITEPROTECT");
  return fd;
}

int main(int argc, char** argv) {
  check(argc == 4, "usage");
  const size_t bytes = strtoull(argv[1], nullptr, 10) << 20;
  const size_t dirty = static_cast<size_t>(bytes / kPage * atof(argv[2]));
  const int rounds = atoi(argv[3]);
  const int pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
  check(pagemap >= 0, "/proc/self/pagemap");
  uint8_t* memory = map(bytes);
  uint8_t* copy = map(bytes);
  memset(memory, 1, bytes);
  memset(copy, 1, bytes);
  userfault(memory, bytes);
  std::vector<PageRegion> found(bytes / kPage);
  std::vector<double> captures, scans, whole, fills;
  uint64_t seed = 42;
  for (int round = 0; round < rounds; round++) {
    for (size_t k = 0; k < dirty; k++) {
      seed = seed * 6364136223846793005u + 1442695040888963407u;
      memory[(seed >> 33) % (bytes / kPage) * kPage + 64] = static_cast<uint8_t>(round);
    }
    auto start = Clock::now();
    ScanArguments scan{sizeof scan, kWpMatching | kCheckWpAsync, reinterpret_cast<uint64_t>(memory), reinterpret_cast<uint64_t>(memory) + bytes, 0,
                       reinterpret_cast<uint64_t>(found.data()), found.size(), 0, 0, kWritten, 0, kWritten};
    const int count = ioctl(pagemap, kPagemapScan, &scan);
    check(count >= 0, "PAGEMAP_SCAN");
    scans.push_back(since(start));
    uint8_t* to = copy;
    for (int k = 0; k < count; k++) {
      const size_t length = found[k].end - found[k].start;
      memcpy(to, reinterpret_cast<void*>(found[k].start), length);
      to += length;
    }
    captures.push_back(since(start));
    start = Clock::now();
    memcpy(copy, memory, bytes);
    whole.push_back(since(start));
  }
  for (int round = 0; round < 3; round++) {
    const size_t part = std::min<size_t>(bytes, 256 << 20);
    uint8_t* target = map(part);
    const int fd = userfault(target, part);
    const auto start = Clock::now();
    for (size_t at = 0; at < part; at += 65536) {
      uffdio_copy fill{reinterpret_cast<uint64_t>(target) + at, reinterpret_cast<uint64_t>(memory) + at, 65536, UFFDIO_COPY_MODE_WP, 0};
      check(ioctl(fd, UFFDIO_COPY, &fill) == 0, "UFFDIO_COPY");
    }
    fills.push_back(part / since(start) / 1e6);
    close(fd);
    munmap(target, part);
  }
  printf("{\"scanMs\":%.3f,\"scanCopyMs\":%.3f,\"wholeCopyMs\":%.3f,\"fillGBs\":%.3f}\n", median(scans), median(captures), median(whole), median(fills));
}
