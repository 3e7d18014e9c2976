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

/** The finaliser of splitmix64. */
uint64_t mix64(uint64_t x) {
  x ^= x >> 30;
  x *= 0xbf58476d1ce4e5b9;
  x ^= x >> 27;
  x *= 0x94d049bb133111eb;
  return x ^ x >> 31;
}

Napi::Value stateSum(const Napi::CallbackInfo& info) {
  const Args args(info);
  const uint64_t region = args.integer(0, "region", UINT32_MAX);
  const Span<uint32_t> pages = args.words(1, "pages");
  const Span<uint32_t> crcs = args.words(2, "crcs");
  if (pages.length != crcs.length) throw ArgumentError(ArgumentError::kRange, "pages and crcs must be of the same length");
  uint64_t sum = 0;
  const uint64_t salt = (region + 1) * 0x9e3779b97f4a7c15;
  for (size_t k = 0; k < pages.length; k++) sum += mix64((static_cast<uint64_t>(pages.data[k]) << 32 | crcs.data[k]) + salt);
  return Napi::BigInt::New(info.Env(), sum);
}

Napi::Value pagesOfKind(const Napi::CallbackInfo& info) {
  const Args args(info);
  const Span<uint8_t> states = args.bytes(0, "states");
  const uint64_t least = args.integer(1, "least", 15);
  const auto isWanted = [&](size_t page) { return (states.data[page] & 0x0f) >= least; };
  size_t count = 0;
  for (size_t page = 0; page < states.length; page++) count += isWanted(page);
  Napi::Uint32Array pages = Napi::Uint32Array::New(info.Env(), count);
  uint32_t* out = pages.Data();
  size_t at = 0;
  for (size_t page = 0; page < states.length && at < count; page++) {
    if (isWanted(page)) out[at++] = static_cast<uint32_t>(page);
  }
  return pages;
}

Napi::Value pick(const Napi::CallbackInfo& info) {
  const Args args(info);
  const Span<uint32_t> words = args.words(0, "words");
  const Span<uint32_t> indices = args.words(1, "indices");
  Napi::Uint32Array picked = Napi::Uint32Array::New(info.Env(), indices.length);
  for (size_t k = 0; k < indices.length; k++) {
    const uint32_t index = indices.data[k];
    if (index >= words.length) throw ArgumentError(ArgumentError::kRange, "indices must lie within words");
    picked.Data()[k] = words.data[index];
  }
  return picked;
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
  define<stateSum>(exports, "stateSum");
  define<pagesOfKind>(exports, "pagesOfKind");
  define<pick>(exports, "pick");
  define<storeLock>(exports, "storeLock");
  define<storeUnlock>(exports, "storeUnlock");
  define<keepLoadedVerb>(exports, "keepLoaded");
  define<syncLogsVerb>(exports, "syncLogs");
  define<probeVerb>(exports, "probe");
}

}  // namespace tidemark
