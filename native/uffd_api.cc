#include <string>
#include <vector>

#include "api.h"
#include "args.h"
#include "errors.h"
#include "uffd_object.h"
#include "uffd_verbs.h"

// The verbs of the low-level door, tidemark/userfaultfd.

namespace tidemark {

namespace {
using uffd::Object;

/** Bits that TypeScript does not know are passed on, for the kernel to refuse. */
constexpr uint64_t kMaxBits = 1ull << 52;
constexpr uint64_t kMaxLength = 1ull << 52;

/** The numbers of the bits that are set: bit 63 (UFFDIO_API's) does not fit a JavaScript number otherwise. */
Napi::Array bitsOf(Napi::Env env, uint64_t set) {
  Napi::Array bits = Napi::Array::New(env);
  for (uint32_t bit = 0, count = 0; bit < 64; bit++) {
    if ((set >> bit & 1) != 0) bits.Set(count++, Napi::Number::New(env, bit));
  }
  return bits;
}

Napi::Value number(Napi::Env env, uint64_t value) { return Napi::Number::New(env, static_cast<double>(value)); }

Napi::Value toObject(Napi::Env env, const uffd::Opened& opened) {
  Napi::Object result = Napi::Object::New(env);
  result.Set("id", number(env, opened.id));
  result.Set("features", bitsOf(env, opened.features));
  result.Set("ioctls", bitsOf(env, opened.ioctls));
  return result;
}

Napi::Value toObject(Napi::Env env, const uffd::Outcome& outcome) {
  Napi::Object result = Napi::Object::New(env);
  result.Set("byteLength", number(env, outcome.done));
  result.Set("error", outcome.error == 0 ? env.Null() : static_cast<Napi::Value>(Napi::String::New(env, errorName(outcome.error))));
  return result;
}

Napi::Value toObject(Napi::Env env, const uffd::Range& range) {
  Napi::Object result = Napi::Object::New(env);
  result.Set("range", number(env, range.id));
  result.Set("byteLength", number(env, range.length));
  result.Set("mode", number(env, range.mode));
  result.Set("pageSize", number(env, range.pageSize));
  result.Set("ioctls", bitsOf(env, range.ioctls));
  return result;
}

Napi::Value uffdOpen(const Napi::CallbackInfo& info) {
  const Args args(info);
  uffd::Options options{};
  options.device = args.boolean(0, "device");
  options.userModeOnly = args.boolean(1, "userModeOnly");
  options.features = args.integer(2, "features", kMaxBits);
  options.keepForks = args.boolean(3, "keepForks");
  options.poisonAtClose = args.boolean(4, "poisonAtClose");
  return toObject(info.Env(), Object::open(info.Env(), options));
}

Napi::Value uffdOffered(const Napi::CallbackInfo& info) {
  const Args args(info);
  return toObject(info.Env(), Object::offered(args.boolean(0, "device"), args.boolean(1, "userModeOnly")));
}

Napi::Value uffdClose(const Napi::CallbackInfo& info) {
  Object::close(info.Env(), Args(info).id(0));
  return info.Env().Undefined();
}

Napi::Value uffdRegister(const Napi::CallbackInfo& info) {
  const Args args(info);
  const uint32_t id = args.id(0);
  const Span<uint8_t> view = args.bytes(1, "view");
  const uint64_t mode = args.integer(2, "mode", kMaxBits);
  return toObject(info.Env(), Object::find(id)->enroll(view, mode));
}

Napi::Value uffdUnregister(const Napi::CallbackInfo& info) {
  const Args args(info);
  const uint32_t id = args.id(0);
  const auto range = static_cast<uint32_t>(args.integer(1, "range", UINT32_MAX));
  const Span<uint8_t> view = args.bytes(2, "view");
  Object::find(id)->withdraw(range, view);
  return info.Env().Undefined();
}

Napi::Value uffdForget(const Napi::CallbackInfo& info) {
  const Args args(info);
  const uint32_t id = args.id(0);
  const auto range = static_cast<uint32_t>(args.integer(1, "range", UINT32_MAX));
  Object::find(id)->forget(range);
  return info.Env().Undefined();
}

/** The ranges of a fork's object, which are those of its parent. */
Napi::Value uffdRanges(const Napi::CallbackInfo& info) {
  Napi::Array result = Napi::Array::New(info.Env());
  uint32_t count = 0;
  for (const uffd::Range& range : Object::find(Args(info).id(0))->ranges()) result.Set(count++, toObject(info.Env(), range));
  return result;
}

/** Arguments 1 to 3 of a verb: range, view and offset. */
uffd::Place placeOf(const Args& args, uint64_t length) {
  uffd::Place place{};
  place.range = static_cast<uint32_t>(args.integer(1, "range", UINT32_MAX));
  place.view = args.bytes(2, "view");
  place.offset = args.integer(3, "byteOffset", kMaxLength);
  place.length = length;
  return place;
}

using WithSource = uffd::Outcome (*)(int fd, const uint8_t* target, const uint8_t* source, size_t length, uint64_t mode);
using InPlace = uffd::Outcome (*)(int fd, const uint8_t* start, size_t length, uint64_t mode);

template <WithSource verb>
Napi::Value fromSource(const Napi::CallbackInfo& info) {
  const Args args(info);
  const uint32_t id = args.id(0);
  const Span<uint8_t> source = args.bytes(4, "source");
  const uint64_t mode = args.integer(5, "mode", kMaxBits);
  const uffd::Place place = placeOf(args, source.length);
  return toObject(info.Env(), Object::find(id)->at(place, [&](int fd, uint8_t* target) { return verb(fd, target, source.data, source.length, mode); }));
}

template <InPlace verb>
Napi::Value inPlace(const Napi::CallbackInfo& info) {
  const Args args(info);
  const uint32_t id = args.id(0);
  const uint64_t length = args.integer(4, "byteLength", kMaxLength);
  const uint64_t mode = args.integer(5, "mode", kMaxBits);
  const uffd::Place place = placeOf(args, length);
  return toObject(info.Env(), Object::find(id)->at(place, [&](int fd, uint8_t* start) { return verb(fd, start, length, mode); }));
}

uffd::Outcome writeProtect(int fd, const uint8_t* start, size_t length, uint64_t mode) {
  const int error = uffd::writeProtect(fd, start, length, mode);
  return {error == 0 ? length : 0, error};
}

uffd::Outcome wake(int fd, const uint8_t* start, size_t length, uint64_t) {
  const int error = uffd::wake(fd, start, length);
  return {error == 0 ? length : 0, error};
}

Napi::Value uffdListen(const Napi::CallbackInfo& info) {
  const uint32_t id = Args(info).id(0);
  if (!info[1].IsFunction()) throw ArgumentError(ArgumentError::kType, "callback must be a function");
  const std::shared_ptr<Object> object = Object::find(id);
  const Napi::Env env = info.Env();
  napi_threadsafe_function function;
  const Napi::String name = Napi::String::New(env, "tidemark:userfaultfd");
  if (napi_create_threadsafe_function(env, info[1], nullptr, name, 0, 1, nullptr, nullptr, nullptr, nullptr, &function) != napi_ok) throw Napi::Error::New(env);
  // Whoever waits for an event keeps the thread alive, not the descriptor.
  napi_unref_threadsafe_function(env, function);
  try {
    object->listen(env, function);
  } catch (...) {
    napi_release_threadsafe_function(function, napi_tsfn_abort);
    throw;
  }
  return env.Undefined();
}

Napi::Value uffdKeepAlive(const Napi::CallbackInfo& info) {
  const Args args(info);
  const uint32_t id = args.id(0);
  const bool on = args.boolean(1, "on");
  Object::find(id)->keepAlive(info.Env(), on);
  return info.Env().Undefined();
}

Napi::Value uffdTake(const Napi::CallbackInfo& info) {
  const std::vector<uffd::Event> events = Object::find(Args(info).id(0))->take();
  constexpr size_t kFields = 10;
  Napi::Float64Array flat = Napi::Float64Array::New(info.Env(), events.size() * kFields);
  double* out = flat.Data();
  const auto add = [&out](uint64_t value) { *out++ = static_cast<double>(value); };
  for (const uffd::Event& event : events) {
    if (event.child != 0) Object::own(info.Env(), event.child);
    add(event.type);
    add(event.flags);
    add(event.thread);
    add(event.place.range);
    // No address: what lies in none of the ranges has no offset.
    add(event.place.range == 0 ? 0 : event.place.offset);
    add(event.place.length);
    add(event.place.range == 0 ? 0 : event.exactOffset);
    add(event.to.range);
    add(event.to.range == 0 ? 0 : event.to.offset);
    add(event.child);
  }
  return flat;
}
}  // namespace

void defineUserfaultfd(Napi::Object exports) {
  define<uffdOpen>(exports, "uffdOpen");
  define<uffdOffered>(exports, "uffdOffered");
  define<uffdClose>(exports, "uffdClose");
  define<uffdRegister>(exports, "uffdRegister");
  define<uffdUnregister>(exports, "uffdUnregister");
  define<uffdForget>(exports, "uffdForget");
  define<uffdRanges>(exports, "uffdRanges");
  define<inPlace<wake>>(exports, "uffdWake");
  define<fromSource<uffd::copy>>(exports, "uffdCopy");
  define<fromSource<uffd::move>>(exports, "uffdMove");
  define<inPlace<uffd::zeropage>>(exports, "uffdZeropage");
  define<inPlace<writeProtect>>(exports, "uffdWriteProtect");
  define<inPlace<uffd::mapCached>>(exports, "uffdContinue");
  define<inPlace<uffd::poison>>(exports, "uffdPoison");
  define<uffdListen>(exports, "uffdListen");
  define<uffdKeepAlive>(exports, "uffdKeepAlive");
  define<uffdTake>(exports, "uffdTake");
}

}  // namespace tidemark
