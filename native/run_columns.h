#pragma once
#include <napi.h>

#include <algorithm>
#include <cstdint>
#include <vector>

namespace tidemark {

template <typename Array, typename T>
Array column(Napi::Env env, const std::vector<T>& values) {
  Array array = Array::New(env, values.size());
  std::copy(values.begin(), values.end(), array.Data());
  return array;
}

/** `RunColumns` of lib/kernel/addon.ts: runs of pages whose versions lie in consecutive slots of a record. */
class RunColumns {
 public:
  size_t count() const { return records_.size(); }

  void add(int64_t record, uint64_t first, uint64_t length, uint64_t slot) {
    records_.push_back(static_cast<double>(record));
    firsts_.push_back(static_cast<uint32_t>(first));
    lengths_.push_back(static_cast<uint32_t>(length));
    slots_.push_back(static_cast<uint8_t>(slot));
  }

  Napi::Object toObject(Napi::Env env) const {
    Napi::Object columns = Napi::Object::New(env);
    columns.Set("records", column<Napi::Float64Array>(env, records_));
    columns.Set("firsts", column<Napi::Uint32Array>(env, firsts_));
    columns.Set("lengths", column<Napi::Uint32Array>(env, lengths_));
    columns.Set("slots", column<Napi::Uint8Array>(env, slots_));
    return columns;
  }

 private:
  std::vector<double> records_;
  std::vector<uint32_t> firsts_;
  std::vector<uint32_t> lengths_;
  std::vector<uint8_t> slots_;
};

}  // namespace tidemark
