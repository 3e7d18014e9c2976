#pragma once
#include <cstddef>
#include <cstdint>

#include "pagemap.h"

namespace tidemark {

/** Private anonymous memory of whole host pages; throws SystemError. */
uint8_t* mapMemory(size_t length, bool hugePages);
/** Pages that are poisoned, of memory that nobody has armed. */
Runs unreadable(const uint8_t* start, size_t length);
/** All of the range is private and anonymous, by /proc/self/maps. */
bool isPrivateAnonymous(const uint8_t* start, size_t length);

/** Opens what `checkReadable` needs if it is not open yet: after setuid(2) it would be refused. */
void prepareChecks();
/**
 * All of the range is mapped, or it throws SystemError ENOMEM; and it may be read, where the kernel can tell (Linux 6.11), or it throws ERR_INACCESSIBLE. A scan passes over what is
 * not mapped in silence.
 */
void checkReadable(const uint8_t* start, size_t length);

}  // namespace tidemark
