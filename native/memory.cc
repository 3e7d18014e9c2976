#include "memory.h"

#include <sys/uio.h>
#include <unistd.h>

#include <cerrno>
#include <cinttypes>
#include <cstdio>
#include <cstdlib>

#include "errors.h"
#include "pagemap.h"
#include "uffd_abi.h"

namespace tidemark {

namespace {
constexpr size_t kHugePageSize = 2 << 20;

uint8_t* mapPlain(size_t length) {
  void* mapped = mmap(nullptr, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (mapped == MAP_FAILED) throw SystemError(errno, "mmap");
  return static_cast<uint8_t*>(mapped);
}

uint8_t* mapAligned(size_t length) {
  uint8_t* mapped = mapPlain(length + kHugePageSize);
  const uintptr_t address = reinterpret_cast<uintptr_t>(mapped);
  const size_t before = (kHugePageSize - address % kHugePageSize) % kHugePageSize;
  if (before > 0) munmap(mapped, before);
  munmap(mapped + before + length, kHugePageSize - before);
  return mapped + before;
}
}  // namespace

uint8_t* mapMemory(size_t length, bool hugePages) {
  // madvise about huge pages is EINVAL on a kernel that has none: nothing to switch then.
  if (!hugePages) {
    uint8_t* memory = mapPlain(length);
    // Huge pages would go with the first epoch, at 3-4 us a page.
    madvise(memory, length, MADV_NOHUGEPAGE);
    return memory;
  }
  uint8_t* memory = mapAligned(length);
  madvise(memory, length, MADV_HUGEPAGE);
  // Before anything is armed: markers are for 4 KiB pages, a hole that has them never becomes huge.
  while (madvise(memory, length, MADV_POPULATE_WRITE) != 0) {
    if (errno == EINTR || errno == EAGAIN) continue;
    const int error = errno;
    munmap(memory, length);
    throw SystemError(error, "madvise(MADV_POPULATE_WRITE)");
  }
  return memory;
}

namespace {
int mappings() {
  static const int fd = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
  return fd;
}
}  // namespace

void prepareChecks() { mappings(); }

void checkReadable(const uint8_t* start, size_t length) {
  // MS_ASYNC does nothing but look at the mappings.
  if (msync(const_cast<uint8_t*>(start), length, MS_ASYNC) != 0) throw SystemError(errno, "msync");
  const uintptr_t end = reinterpret_cast<uintptr_t>(start) + length;
  for (uintptr_t at = reinterpret_cast<uintptr_t>(start); at < end;) {
    procmap_query query{};
    query.size = sizeof query;
    query.query_flags = PROCMAP_QUERY_VMA_READABLE;
    query.query_addr = at;
    if (ioctl(mappings(), PROCMAP_QUERY, &query) == 0) at = query.vma_end;
    else if (errno == ENOENT) throw CodedError("ERR_INACCESSIBLE", "a part of the memory may not be read (mprotect)");
    else return;  // an older kernel
  }
}

Runs unreadable(const uint8_t* start, size_t length) {
  Runs result;
  for (const Run& run : pagemap::notPresent(start, length)) {
    for (uint32_t k = 0; k < run.count; k++) {
      const uint32_t number = run.first + k;
      uint8_t byte;
      iovec to{&byte, 1};
      iovec from{const_cast<uint8_t*>(start) + number * kPageSize, 1};
      // A page in swap can be read.
      if (process_vm_readv(getpid(), &to, 1, &from, 1, 0) < 0 && errno == EFAULT) append(result, number);
    }
  }
  return result;
}

bool isPrivateAnonymous(const uint8_t* start, size_t length) {
  FILE* file = fopen("/proc/self/maps", "re");
  if (file == nullptr) return false;
  const uintptr_t from = reinterpret_cast<uintptr_t>(start);
  const uintptr_t to = from + length;
  uintptr_t covered = from;
  bool result = true;
  char* line = nullptr;
  size_t capacity = 0;
  while (result && covered < to && getline(&line, &capacity, file) > 0) {
    uintptr_t first;
    uintptr_t end;
    char access[5];
    unsigned long inode;
    int path = 0;
    if (sscanf(line, "%" SCNxPTR "-%" SCNxPTR " %4s %*x %*x:%*x %lu %n", &first, &end, access, &inode, &path) != 4) {
      result = false;
    } else if (end > covered && first < to) {
      // A path in brackets is a name: [heap], [stack], [anon:...].
      const bool anonymous = inode == 0 && (path == 0 || line[path] == '\0' || line[path] == '[');
      result = first <= covered && access[3] == 'p' && anonymous;
      covered = end;
    }
  }
  free(line);
  fclose(file);
  return result && covered >= to;
}

}  // namespace tidemark
