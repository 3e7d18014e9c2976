#pragma once
#include <cstddef>
#include <cstdint>

/**
 * The process is ending by `process.exit()`: Node.js ends its threads one after the other, and when the one that fetches pages is gone, others may still touch
 * what is missing, which is poisoned then. That must not turn an orderly end into a death by SIGBUS.
 */
namespace tidemark::exiting {

/** With this exit code. */
void begin(int code);
/** Before pages in this memory are poisoned because a thread has ended: who touches one from now on ends the process as it was to end, if it was. */
void prepare(const uint8_t* start, size_t length);

}  // namespace tidemark::exiting
