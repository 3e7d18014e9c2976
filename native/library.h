#pragma once
#include <cstdint>
#include <string>

namespace tidemark {

/**
 * Keeps the loaded libraries whose path contains `part` in the process for good. Node unloads an addon with the last worker that loaded
 * it; a thread that the addon has left behind (LevelDB never joins its background thread) would wait on with its return address in memory that
 * is not mapped any more. Returns how many were found.
 */
uint32_t keepLoaded(const std::string& part);

}  // namespace tidemark
