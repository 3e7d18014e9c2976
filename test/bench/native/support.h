#pragma once
// Time, memory and threads, the same for all peers.
#include <fcntl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

// The pool that tidemark copies with: a peer must not lose because it starts threads for every epoch. As source, for a program of the
// benchmark is one file to the compiler.
#include "../../../native/pool.cc"
#include "../../../native/thread.cc"

using tidemark::runParallel;

constexpr size_t kPage = 4096;

using Clock = std::chrono::steady_clock;

inline double since(Clock::time_point start) { return std::chrono::duration<double, std::milli>(Clock::now() - start).count(); }

/** What this thread has used of a processor, in the kernel too; waiting for a turn, which other threads cause, is no part of it. */
inline double threadNanoseconds() {
  timespec now;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return now.tv_sec * 1e9 + now.tv_nsec;
}

inline void check(bool ok, const char* what) {
  if (ok) return;
  perror(what);
  // Not exit(): other threads may be at work on what its handlers would destroy.
  _exit(1);
}

/** Memory that takes room only where it is touched, in pages of 4 KiB as tidemark's regions are. */
inline uint8_t* map(size_t bytes) {
  void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  check(memory != MAP_FAILED, "mmap");
  madvise(memory, bytes, MADV_NOHUGEPAGE);
  return static_cast<uint8_t*>(memory);
}

/** The sum of the fields that begin with `name` in a file of /proc that has lines of `name: kB`. */
inline uint64_t procBytes(const char* path, const char* name) {
  FILE* file = fopen(path, "re");
  check(file != nullptr, path);
  char line[256];
  uint64_t kilobytes = 0;
  bool found = false;
  while (fgets(line, sizeof line, file) != nullptr) {
    const char* colon = strchr(line, ':');
    if (colon == nullptr || strncmp(line, name, strlen(name)) != 0) continue;
    kilobytes += strtoull(colon + 1, nullptr, 10);
    found = true;
  }
  fclose(file);
  check(found, name);
  return kilobytes << 10;
}

/** From now on VmHWM is the largest size from now on. */
inline void forgetPeak() {
  const int fd = open("/proc/self/clear_refs", O_WRONLY | O_CLOEXEC);
  check(fd >= 0 && write(fd, "5", 1) == 1, "/proc/self/clear_refs");
  close(fd);
}

/** An array of one line of JSON, and what follows it. */
inline void printArray(const char* name, const std::vector<double>& values, const char* end) {
  printf("\"%s\":[", name);
  for (size_t k = 0; k < values.size(); k++) printf("%s%.4f", k ? "," : "", values[k]);
  printf("]%s", end);
}
