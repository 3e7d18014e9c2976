#pragma once
#include <napi.h>

#include <exception>
#include <string>

namespace tidemark {

/** A system call failed; becomes an Error with `code`, `errno` (negative, as Node's own) and `syscall`. */
struct SystemError : std::exception {
  SystemError(int number, const char* call, std::string path = {}) : number(number), call(call), path(std::move(path)) {}
  const char* what() const noexcept override { return call; }
  int number;
  const char* call;
  std::string path;
};

/** A condition of our own; becomes an Error with `code` ERR_... */
struct CodedError : std::exception {
  CodedError(const char* code, std::string message) : code(code), message(std::move(message)) {}
  const char* what() const noexcept override { return message.c_str(); }
  const char* code;
  std::string message;
};

/** Misuse: a TypeError, or a RangeError, without a code. */
struct ArgumentError : std::exception {
  enum Kind { kType, kRange };
  ArgumentError(Kind kind, std::string message) : kind(kind), message(std::move(message)) {}
  const char* what() const noexcept override { return message.c_str(); }
  Kind kind;
  std::string message;
};

CodedError closedError(const char* what, uint32_t id);
std::string errorName(int number);

Napi::Error toJs(Napi::Env env, const SystemError& error);
Napi::Error toJs(Napi::Env env, const CodedError& error);
Napi::Error toJs(Napi::Env env, const ArgumentError& error);

using Verb = Napi::Value (*)(const Napi::CallbackInfo&);

/** Every verb goes through here: nothing but a JavaScript exception may leave native code. */
template <Verb verb>
Napi::Value guarded(const Napi::CallbackInfo& info) {
  try {
    return verb(info);
  } catch (const SystemError& error) {
    throw toJs(info.Env(), error);
  } catch (const CodedError& error) {
    throw toJs(info.Env(), error);
  } catch (const ArgumentError& error) {
    throw toJs(info.Env(), error);
  } catch (const std::bad_alloc&) {
    throw toJs(info.Env(), SystemError(ENOMEM, "malloc"));
  }
}

template <Verb verb>
void define(Napi::Object exports, const char* name) {
  exports.Set(name, Napi::Function::New<guarded<verb>>(exports.Env(), name));
}

}  // namespace tidemark
