#include <algorithm>
#include <cstdint>

#include "api.h"
#include "args.h"
#include "cleanup.h"
#include "crc32c.h"
#include "errors.h"
#include "library.h"
#include "probe.h"
#include "ring.h"
#include "store_lock.h"

// The verbs that are about neither regions nor the memory they are made of.

namespace tidemark {

namespace {
Napi::Value crc32cVerb(const Napi::CallbackInfo& info) {
  const Args args(info);
  const Span<uint8_t> bytes = args.bytes(0, "bytes");
  const uint32_t crc = args.given(1) ? static_cast<uint32_t>(args.integer(1, "crc", UINT32_MAX)) : 0;
  return Napi::Number::New(info.Env(), crc32c(crc, bytes.data, bytes.length));
}

Napi::Value crc32cPagesVerb(const Napi::CallbackInfo& info) {
  const Args args(info);
  const Span<uint8_t> bytes = args.bytes(0, "bytes");
  const Span<uint32_t> out = args.words(1, "out");
  if (bytes.length % kPageSize != 0) throw ArgumentError(ArgumentError::kRange, "bytes must be whole pages");
  if (out.length < bytes.length / kPageSize) throw ArgumentError(ArgumentError::kRange, "out must hold a number for each page");
  crc32cPages(bytes.data, bytes.length / kPageSize, out.data);
  return info.Env().Undefined();
}

Napi::Value storeLock(const Napi::CallbackInfo& info) {
  return Napi::Number::New(info.Env(), lockStore(info.Env(), Args(info).path(0, "folder")));
}

Napi::Value storeUnlock(const Napi::CallbackInfo& info) {
  unlockStore(info.Env(), Args(info).id(0));
  return info.Env().Undefined();
}

Napi::Value keepLoadedVerb(const Napi::CallbackInfo& info) {
  return Napi::Number::New(info.Env(), keepLoaded(Args(info).path(0, "part")));
}

Napi::Value syncLogsVerb(const Napi::CallbackInfo& info) {
  return Napi::Number::New(info.Env(), syncLogs(Args(info).path(0, "folder")));
}

Napi::Value probeVerb(const Napi::CallbackInfo& info) { return probe(info.Env()); }

Napi::Value ringCreate(const Napi::CallbackInfo& info) {
  const auto segments = static_cast<uint32_t>(Args(info).integer(0, "segments", 1 << 24));
  if (segments == 0) throw ArgumentError(ArgumentError::kRange, "segments must not be 0");
  const uint32_t id = Ring::create(segments);
  // Its memory belongs to this environment: nobody is left to close the ring when that has ended.
  Cleanup::add(info.Env(), Ring::close, id);
  return Napi::Number::New(info.Env(), id);
}

Napi::Value ringJoin(const Napi::CallbackInfo& info) {
  const uint32_t id = Args(info).id(0);
  Ring::find(id);
  // Registered now and not at load: so it runs before the hook of a database, which may take its time to close.
  Cleanup::add(info.Env(), Ring::kill, id);
  return info.Env().Undefined();
}

Napi::Value ringAcquire(const Napi::CallbackInfo& info) {
  const Args args(info);
  const uint32_t id = args.id(0);
  const auto want = static_cast<uint32_t>(args.integer(1, "want", UINT32_MAX));
  const auto stallMs = static_cast<uint32_t>(args.integer(2, "stallMs", INT32_MAX));
  if (want == 0) throw ArgumentError(ArgumentError::kRange, "want must not be 0");
  const Napi::Env env = info.Env();
  const auto mayWait = [env] { return mayGoOn(env); };
  const std::vector<int32_t> taken = Ring::find(id)->acquire(want, stallMs, mayWait);
  if (taken.empty()) return env.Undefined();
  Napi::Int32Array array = Napi::Int32Array::New(env, taken.size());
  std::copy(taken.begin(), taken.end(), array.Data());
  return array;
}

Napi::Value ringRelease(const Napi::CallbackInfo& info) {
  const Args args(info);
  const uint32_t id = args.id(0);
  const std::vector<int32_t> segments = args.int32s(1, "segments");
  const std::shared_ptr<Ring> ring = Ring::find(id, true);
  if (ring != nullptr) ring->release(segments);
  return info.Env().Undefined();
}

Napi::Value ringStarved(const Napi::CallbackInfo& info) {
  return Napi::Boolean::New(info.Env(), Ring::find(Args(info).id(0))->starved());
}

Napi::Value ringFree(const Napi::CallbackInfo& info) {
  return Napi::Number::New(info.Env(), static_cast<double>(Ring::find(Args(info).id(0))->free()));
}

Napi::Value ringClose(const Napi::CallbackInfo& info) {
  Ring::close(Args(info).id(0));
  return info.Env().Undefined();
}
}  // namespace

void defineRing(Napi::Object exports) {
  define<ringCreate>(exports, "ringCreate");
  define<ringJoin>(exports, "ringJoin");
  define<ringAcquire>(exports, "ringAcquire");
  define<ringRelease>(exports, "ringRelease");
  define<ringStarved>(exports, "ringStarved");
  define<ringFree>(exports, "ringFree");
  define<ringClose>(exports, "ringClose");
}

void defineMisc(Napi::Object exports) {
  define<crc32cVerb>(exports, "crc32c");
  define<crc32cPagesVerb>(exports, "crc32cPages");
  define<storeLock>(exports, "storeLock");
  define<storeUnlock>(exports, "storeUnlock");
  define<keepLoadedVerb>(exports, "keepLoaded");
  define<syncLogsVerb>(exports, "syncLogs");
  define<probeVerb>(exports, "probe");
}

}  // namespace tidemark
