#include "library.h"

#include <dlfcn.h>
#include <link.h>

#include <vector>

namespace tidemark {

uint32_t keepLoaded(const std::string& part) {
  struct Search {
    const std::string& part;
    std::vector<std::string> found;
  } search{part, {}};
  // Opening must wait until the walk is over, for it takes the loader's lock.
  dl_iterate_phdr(
      [](dl_phdr_info* info, size_t, void* data) {
        auto& wanted = *static_cast<Search*>(data);
        const std::string path = info->dlpi_name == nullptr ? "" : info->dlpi_name;
        if (path.find(wanted.part) != std::string::npos) wanted.found.push_back(path);
        return 0;
      },
      &search);
  uint32_t kept = 0;
  for (const std::string& path : search.found) {
    if (dlopen(path.c_str(), RTLD_NOW | RTLD_NOLOAD | RTLD_NODELETE) != nullptr) kept++;
  }
  return kept;
}

}  // namespace tidemark
