#pragma once
#include <cstddef>
#include <cstdint>

namespace tidemark {

/** CRC32C (Castagnoli); `crc` continues an earlier one. */
uint32_t crc32c(uint32_t crc, const uint8_t* data, size_t length);
/** The CRC32C of each page of 4 KiB. */
void crc32cPages(const uint8_t* data, size_t pages, uint32_t* out);

}  // namespace tidemark
