#pragma once
#include <cstddef>
#include <cstdint>

namespace tidemark {

/** Private anonymous memory of whole host pages; throws SystemError. */
uint8_t* mapMemory(size_t length, bool hugePages);
/** All of the range is private and anonymous, by /proc/self/maps. */
bool isPrivateAnonymous(const uint8_t* start, size_t length);

}  // namespace tidemark
