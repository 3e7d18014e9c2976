#include "errors.h"

#include <uv.h>

namespace tidemark {

std::string errorName(int number) {
  char name[64];
  return uv_err_name_r(-number, name, sizeof name);
}

CodedError closedError(const char* what, uint32_t id) {
  return CodedError("ERR_CLOSED", std::string(what) + " " + std::to_string(id) + " is closed or was never opened");
}

Napi::Error toJs(Napi::Env env, const SystemError& error) {
  char text[256];
  const std::string name = errorName(error.number);
  std::string message = name + ": " + uv_strerror_r(-error.number, text, sizeof text) + ", " + error.call;
  if (!error.path.empty()) message += " '" + error.path + "'";
  Napi::Error result = Napi::Error::New(env, message);
  result.Set("code", Napi::String::New(env, name));
  result.Set("errno", Napi::Number::New(env, -error.number));
  result.Set("syscall", Napi::String::New(env, error.call));
  if (!error.path.empty()) result.Set("path", Napi::String::New(env, error.path));
  return result;
}

Napi::Error toJs(Napi::Env env, const CodedError& error) {
  Napi::Error result = Napi::Error::New(env, error.message);
  result.Set("code", Napi::String::New(env, error.code));
  return result;
}

Napi::Error toJs(Napi::Env env, const ArgumentError& error) {
  if (error.kind == ArgumentError::kType) return Napi::TypeError::New(env, error.message);
  return Napi::RangeError::New(env, error.message);
}

}  // namespace tidemark
