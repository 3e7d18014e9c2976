#pragma once
#include <napi.h>

#include <string>

#include "failures.h"

namespace tidemark {

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
