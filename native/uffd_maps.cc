#include "uffd_maps.h"

#include <algorithm>
#include <cinttypes>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace tidemark::uffd {

std::vector<Mapping> mappingsOf(const uint8_t* start, size_t length) {
  std::vector<Mapping> found;
  FILE* file = fopen("/proc/self/smaps", "re");
  if (file == nullptr) return found;
  const uintptr_t from = reinterpret_cast<uintptr_t>(start);
  const uintptr_t to = from + length;
  bool inside = false;
  char* line = nullptr;
  size_t capacity = 0;
  while (getline(&line, &capacity, file) > 0) {
    uintptr_t first;
    uintptr_t end;
    size_t kib;
    if (sscanf(line, "%" SCNxPTR "-%" SCNxPTR " ", &first, &end) == 2) {
      if (first >= to) break;
      inside = end > from;
      const uintptr_t begin = std::max(first, from);
      if (inside) found.push_back({reinterpret_cast<uint8_t*>(begin), std::min(end, to) - begin, 0, false});
    } else if (inside && sscanf(line, "KernelPageSize: %zu kB", &kib) == 1) {
      found.back().pageSize = kib << 10;
    } else if (inside && strncmp(line, "VmFlags:", 8) == 0) {
      found.back().missing = strstr(line, " um") != nullptr;
    }
  }
  free(line);
  fclose(file);
  return found;
}

}  // namespace tidemark::uffd
