#pragma once
#include <napi.h>

#include <string>
#include <vector>

#include "pagemap.h"

namespace tidemark {

/** Memory of a typed array; `data` may be null where `length` is 0. Valid until JavaScript runs again. */
template <typename T>
struct Span {
  T* data;
  size_t length;
};

/**
 * The arguments of one call, checked by type and never converted: no JavaScript runs while a pointer is held.
 * Arrays whose values steer native code are copied out before they are checked, for a SharedArrayBuffer's content may
 * change between the check and the use.
 */
class Args {
 public:
  explicit Args(const Napi::CallbackInfo& info) : info_(info) {}

  Span<uint8_t> bytes(size_t index, const char* name) const;
  Span<uint32_t> words(size_t index, const char* name) const;
  Span<double> doubles(size_t index, const char* name) const;
  std::vector<int32_t> int32s(size_t index, const char* name) const;
  std::vector<uint32_t> uint32s(size_t index, const char* name) const;
  /** `[firstPage, pageCount, ...]`, ascending and not overlapping. */
  Runs runs(size_t index, const char* name) const;
  uint64_t integer(size_t index, const char* name, uint64_t max) const;
  uint32_t id(size_t index) const { return static_cast<uint32_t>(integer(index, "id", UINT32_MAX)); }
  bool boolean(size_t index, const char* name) const;
  std::string path(size_t index, const char* name) const;
  bool given(size_t index) const { return index < info_.Length() && !info_[index].IsUndefined(); }

 private:
  void* typed(size_t index, const char* name, napi_typedarray_type type, const char* typeName, size_t* length) const;
  const Napi::CallbackInfo& info_;
};

/** What `Args::runs` takes. */
Napi::Value toArray(Napi::Env env, const Runs& runs);

/** For loops that wait: terminate() does not interrupt native code, but where it was called no script can be run any more. */
bool mayGoOn(Napi::Env env);

}  // namespace tidemark
