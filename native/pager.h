#pragma once
#include <cstdint>
#include <memory>

#include "residence.h"

namespace tidemark::pager {

/**
 * Reads the events of a residence as they come, in a thread that all share, until `remove`: with EVENT_REMOVE on, whoever drops pages waits for that. The
 * thread is made with the first residence and never ended. Throws SystemError.
 */
uint64_t add(const std::shared_ptr<Residence>& residence);
/** When it returns the pager has let go of it. */
void remove(uint64_t key);

}  // namespace tidemark::pager
