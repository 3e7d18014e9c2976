// What the programs of the benchmark share. They have no code of the library: they are what it is compared with.
#pragma once
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <thread>
#include <vector>

// Headers older than Linux 6.7 lack these.
#ifndef UFFD_FEATURE_WP_UNPOPULATED
#define UFFD_FEATURE_WP_UNPOPULATED (1 << 13)
#endif
#ifndef UFFD_FEATURE_WP_ASYNC
#define UFFD_FEATURE_WP_ASYNC (1 << 15)
#endif

constexpr size_t kPage = 4096;
constexpr size_t kFrame = 65536;

using Clock = std::chrono::steady_clock;

inline double since(Clock::time_point start) { return std::chrono::duration<double, std::milli>(Clock::now() - start).count(); }

inline void check(bool ok, const char* what) {
  if (ok) return;
  perror(what);
  exit(1);
}

/** Memory of small pages, as tracked memory is. */
inline uint8_t* map(size_t bytes) {
  void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  check(memory != MAP_FAILED, "mmap");
  madvise(memory, bytes, MADV_NOHUGEPAGE);
  return static_cast<uint8_t*>(memory);
}

/** Tracks writes to memory, all of which counts as not written. */
inline int track(uint8_t* memory, size_t bytes) {
  const int device = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);
  const int fd = device >= 0 ? ioctl(device, USERFAULTFD_IOC_NEW, O_CLOEXEC) : static_cast<int>(syscall(SYS_userfaultfd, O_CLOEXEC | 1));
  if (device >= 0) close(device);
  check(fd >= 0, "userfaultfd");
  uffdio_api api{UFFD_API, UFFD_FEATURE_PAGEFAULT_FLAG_WP | UFFD_FEATURE_WP_UNPOPULATED | UFFD_FEATURE_WP_ASYNC, 0};
  check(ioctl(fd, UFFDIO_API, &api) == 0, "UFFDIO_API");
  uffdio_register registration{{reinterpret_cast<uint64_t>(memory), bytes}, UFFDIO_REGISTER_MODE_WP, 0};
  check(ioctl(fd, UFFDIO_REGISTER, &registration) == 0, "UFFDIO_REGISTER");
  uffdio_writeprotect protect{{reinterpret_cast<uint64_t>(memory), bytes}, UFFDIO_WRITEPROTECT_MODE_WP};
  check(ioctl(fd, UFFDIO_WRITEPROTECT, &protect) == 0, "UFFDIO_WRITEPROTECT");
  return fd;
}

struct PageRange {
  uint64_t start, end, categories;
};

/** PAGEMAP_SCAN of what was written, which counts as not written from then on. */
class Scan {
 public:
  explicit Scan(size_t bytes) : pagemap_(open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC)), found_(bytes / kPage) { check(pagemap_ >= 0, "/proc/self/pagemap"); }

  /** How many ranges of `ranges()`. */
  size_t operator()(uint8_t* memory, size_t bytes) {
    Arguments scan{sizeof scan, kWpMatching | kCheckWpAsync, reinterpret_cast<uint64_t>(memory), reinterpret_cast<uint64_t>(memory) + bytes, 0,
                   reinterpret_cast<uint64_t>(found_.data()), found_.size(), 0, 0, kWritten, 0, kWritten};
    const int count = ioctl(pagemap_, kPagemapScan, &scan);
    check(count >= 0, "PAGEMAP_SCAN");
    return static_cast<size_t>(count);
  }
  const PageRange* ranges() const { return found_.data(); }

 private:
  struct Arguments {
    uint64_t size, flags, start, end, walkEnd, vector, vectorLength, maxPages, inverted, mask, anyof, returned;
  };
  static constexpr unsigned long kPagemapScan = _IOWR('f', 16, Arguments);
  static constexpr uint64_t kWritten = 1 << 1, kWpMatching = 1 << 0, kCheckWpAsync = 1 << 1;

  const int pagemap_;
  std::vector<PageRange> found_;
};

/** Runs `part(k)` for every k below `count`, each on a thread of its own. */
inline void onAll(unsigned count, const std::function<void(unsigned)>& part) {
  std::vector<std::thread> threads;
  for (unsigned k = 0; k < count; k++) threads.emplace_back(part, k);
  for (std::thread& thread : threads) thread.join();
}

inline void printArray(const char* name, const std::vector<double>& values, const char* end) {
  printf("\"%s\":[", name);
  for (size_t k = 0; k < values.size(); k++) printf("%s%.4f", k ? "," : "", values[k]);
  printf("]%s", end);
}
