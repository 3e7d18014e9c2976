#include "args.h"

#include <cmath>
#include <cstring>

#include "errors.h"

namespace tidemark {

namespace {
[[noreturn]] void wrongType(const char* name, const char* expected) {
  throw ArgumentError(ArgumentError::kType, std::string(name) + " must be " + expected);
}
[[noreturn]] void outOfRange(const char* name, const std::string& expected) {
  throw ArgumentError(ArgumentError::kRange, std::string(name) + " must be " + expected);
}
}  // namespace

// napi_get_typedarray_info rather than Napi::TypedArray: it takes views over a SharedArrayBuffer, too.
void* Args::typed(size_t index, const char* name, napi_typedarray_type type, const char* typeName, size_t* length) const {
  const napi_value value = info_[index];
  bool isTyped = false;
  napi_typedarray_type actual;
  void* data = nullptr;
  if (napi_is_typedarray(info_.Env(), value, &isTyped) != napi_ok || !isTyped) wrongType(name, typeName);
  if (napi_get_typedarray_info(info_.Env(), value, &actual, length, &data, nullptr, nullptr) != napi_ok || actual != type) wrongType(name, typeName);
  if (data == nullptr) *length = 0;
  return data;
}

Span<uint8_t> Args::bytes(size_t index, const char* name) const {
  size_t length = 0;
  void* data = typed(index, name, napi_uint8_array, "a Uint8Array", &length);
  return {static_cast<uint8_t*>(data), length};
}

Span<uint32_t> Args::words(size_t index, const char* name) const {
  size_t length = 0;
  void* data = typed(index, name, napi_uint32_array, "a Uint32Array", &length);
  return {static_cast<uint32_t*>(data), length};
}

Span<double> Args::doubles(size_t index, const char* name) const {
  size_t length = 0;
  void* data = typed(index, name, napi_float64_array, "a Float64Array", &length);
  return {static_cast<double*>(data), length};
}

std::vector<int32_t> Args::int32s(size_t index, const char* name) const {
  size_t length = 0;
  const auto* data = static_cast<const int32_t*>(typed(index, name, napi_int32_array, "an Int32Array", &length));
  return length == 0 ? std::vector<int32_t>() : std::vector<int32_t>(data, data + length);
}

std::vector<uint32_t> Args::uint32s(size_t index, const char* name) const {
  const Span<uint32_t> flat = words(index, name);
  return flat.length == 0 ? std::vector<uint32_t>() : std::vector<uint32_t>(flat.data, flat.data + flat.length);
}

Runs Args::runs(size_t index, const char* name) const {
  const Span<uint32_t> flat = words(index, name);
  if (flat.length % 2 != 0) outOfRange(name, "pairs of [firstPage, pageCount]");
  Runs runs(flat.length / 2);
  uint64_t end = 0;
  for (size_t i = 0; i < runs.size(); i++) {
    runs[i] = {flat.data[2 * i], flat.data[2 * i + 1]};
    if (runs[i].count == 0 || runs[i].first < end) outOfRange(name, "ascending runs of at least one page");
    end = static_cast<uint64_t>(runs[i].first) + runs[i].count;
  }
  return runs;
}

uint64_t Args::integer(size_t index, const char* name, uint64_t max) const {
  if (!info_[index].IsNumber()) wrongType(name, "a number");
  const double value = info_[index].As<Napi::Number>().DoubleValue();
  if (!(value >= 0) || value > static_cast<double>(max) || value != std::floor(value)) outOfRange(name, "an integer from 0 to " + std::to_string(max));
  return static_cast<uint64_t>(value);
}

bool Args::boolean(size_t index, const char* name) const {
  if (!info_[index].IsBoolean()) wrongType(name, "a boolean");
  return info_[index].As<Napi::Boolean>().Value();
}

std::string Args::path(size_t index, const char* name) const {
  if (!info_[index].IsString()) wrongType(name, "a string");
  std::string path = info_[index].As<Napi::String>().Utf8Value();
  if (path.empty() || path.find('\0') != std::string::npos) wrongType(name, "a path: not empty and without null bytes");
  return path;
}

Napi::Value toArray(Napi::Env env, const Runs& runs) {
  static_assert(sizeof(Run) == 2 * sizeof(uint32_t), "runs are handed over as they are");
  Napi::Uint32Array array = Napi::Uint32Array::New(env, runs.size() * 2);
  if (!runs.empty()) memcpy(array.Data(), runs.data(), runs.size() * sizeof(Run));
  return array;
}

bool mayGoOn(Napi::Env env) {
  napi_value result;
  const Napi::HandleScope scope(env);
  return napi_run_script(env, Napi::String::New(env, "0"), &result) == napi_ok;
}

}  // namespace tidemark
