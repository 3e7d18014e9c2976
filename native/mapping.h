#pragma once
#include <napi.h>

#include <memory>

#include "shared_file.h"

namespace tidemark {

/** How long a buffer of this Node.js may be. */
uint64_t maxBufferLength(Napi::Env env);

/** An ArrayBuffer of `byteLength` bytes over memory of `mapped` bytes, which is unmapped when it is collected. */
Napi::Value wrapMemory(Napi::Env env, uint8_t* memory, size_t mapped, uint64_t byteLength);
/** The same over a file that is mapped. */
Napi::Value wrapFile(Napi::Env env, const std::shared_ptr<SharedFile>& file);

}  // namespace tidemark
