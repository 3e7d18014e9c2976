#include "mapping.h"

#include <sys/mman.h>

#include "region.h"

namespace tidemark {

namespace {
/** Memory behind an ArrayBuffer. V8 accounts for it by itself: it has a deleter. */
class Mapping {
 public:
  Mapping(uint8_t* memory, size_t length, std::shared_ptr<SharedFile> file) : memory_(memory), length_(length), file_(std::move(file)) {}
  Mapping(const Mapping&) = delete;
  Mapping& operator=(const Mapping&) = delete;
  ~Mapping() { release(); }
  void release() {
    if (memory_ == nullptr) return;
    // When an environment ends, Node finalises its buffers before any cleanup hook runs, and other threads may be filling
    // the memory: regions in it end first.
    Region::closeWithin(memory_, length_);
    if (file_ != nullptr) file_->forget();
    munmap(memory_, length_);
    memory_ = nullptr;
  }

 private:
  uint8_t* memory_;
  const size_t length_;
  const std::shared_ptr<SharedFile> file_;
};

Napi::Value wrap(Napi::Env env, Mapping* mapping, uint8_t* memory, uint64_t byteLength) {
  const auto finalise = [](napi_env, void*, void* hint) { delete static_cast<Mapping*>(hint); };
  napi_value buffer;
  const napi_status status = napi_create_external_arraybuffer(env, memory, byteLength, finalise, mapping, &buffer);
  if (status != napi_ok) {
    // Whether Node still calls the finaliser depends on what failed: the mapping goes now, its few bytes are left to it.
    mapping->release();
    throw Napi::Error::New(env);
  }
  return Napi::Value(env, buffer);
}
}  // namespace

/** 4 GiB in Node 20. Asked for beforehand: when an external buffer is too long, Node frees its finaliser twice. */
uint64_t maxBufferLength(Napi::Env env) {
  const Napi::Value value = env.RunScript("process.getBuiltinModule('node:buffer').constants.MAX_LENGTH");
  return value.IsNumber() ? static_cast<uint64_t>(value.As<Napi::Number>().Int64Value()) : 1ull << 32;
}

Napi::Value wrapMemory(Napi::Env env, uint8_t* memory, size_t mapped, uint64_t byteLength) {
  return wrap(env, new Mapping(memory, mapped, nullptr), memory, byteLength);
}

Napi::Value wrapFile(Napi::Env env, const std::shared_ptr<SharedFile>& file) {
  return wrap(env, new Mapping(file->memory(), file->length(), file), file->memory(), file->length());
}

}  // namespace tidemark
