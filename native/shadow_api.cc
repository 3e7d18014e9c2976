#include <algorithm>

#include "api.h"
#include "args.h"
#include "cleanup.h"
#include "errors.h"
#include "shadow.h"

namespace tidemark {

namespace {
Napi::Value shadowsCreate(const Napi::CallbackInfo& info) {
  const uint32_t id = Shadows::create(Args(info).integer(0, "byteLength", 1ull << 43));
  Cleanup::add(info.Env(), Shadows::close, id);
  return Napi::Number::New(info.Env(), id);
}

Napi::Value shadowsJoin(const Napi::CallbackInfo& info) {
  const uint32_t id = Args(info).id(0);
  Shadows::find(id);
  Cleanup::add(info.Env(), Shadows::kill, id);
  return info.Env().Undefined();
}

Napi::Value shadowsUsed(const Napi::CallbackInfo& info) {
  return Napi::Number::New(info.Env(), static_cast<double>(Shadows::find(Args(info).id(0))->usedBytes()));
}

Napi::Value shadowsClose(const Napi::CallbackInfo& info) {
  Shadows::close(Args(info).id(0));
  return info.Env().Undefined();
}

// Arguments are checked before the shadows are looked for: what is wrong with a call does not depend on what is open.
uint32_t tableOf(const Args& args) { return static_cast<uint32_t>(args.integer(1, "table", UINT32_MAX)); }
uint32_t sequenceOf(const Args& args) { return static_cast<uint32_t>(args.integer(2, "sequence", UINT32_MAX)); }

Napi::Value shadowOpen(const Napi::CallbackInfo& info) {
  return Napi::Number::New(info.Env(), Shadows::find(Args(info).id(0))->openTable());
}

Napi::Value shadowClose(const Napi::CallbackInfo& info) {
  const Args args(info);
  const uint32_t table = tableOf(args);
  Shadows::find(args.id(0))->closeTable(table);
  return info.Env().Undefined();
}

Napi::Value shadowFail(const Napi::CallbackInfo& info) {
  const Args args(info);
  const uint32_t table = tableOf(args);
  const uint32_t sequence = sequenceOf(args);
  return Napi::Number::New(info.Env(), Shadows::find(args.id(0))->fail(table, sequence));
}

Napi::Value shadowDrop(const Napi::CallbackInfo& info) {
  const Args args(info);
  const uint32_t table = tableOf(args);
  const uint32_t sequence = sequenceOf(args);
  Shadows::find(args.id(0))->drop(table, sequence);
  return info.Env().Undefined();
}

Napi::Value shadowForget(const Napi::CallbackInfo& info) {
  const Args args(info);
  const uint32_t table = tableOf(args);
  const Runs runs = args.runs(2, "runs");
  const std::shared_ptr<Shadows> shadows = Shadows::find(args.id(0), true);
  if (shadows != nullptr) shadows->forget(table, runs);
  return info.Env().Undefined();
}

Napi::Value shadowCorrupt(const Napi::CallbackInfo& info) {
  const Args args(info);
  const uint32_t table = tableOf(args);
  Shadows::find(args.id(0))->corrupt(table);
  return info.Env().Undefined();
}

void need(bool fits, const char* message) {
  if (!fits) throw ArgumentError(ArgumentError::kRange, message);
}

Napi::Value shadowPut(const Napi::CallbackInfo& info) {
  const Args args(info);
  const uint32_t table = tableOf(args);
  const std::vector<uint32_t> numbers = args.uint32s(2, "pages");
  const Span<uint8_t> bytes = args.bytes(3, "bytes");
  const Span<uint32_t> crcs = args.words(4, "crcs");
  const Span<uint8_t> depths = args.bytes(5, "depths");
  need(bytes.length / kPageSize >= numbers.size() && crcs.length >= numbers.size() && depths.length >= numbers.size(), "bytes, crcs and depths must hold all pages");
  // They may have gone with the codec threads while a restore goes on.
  const std::shared_ptr<Shadows> shadows = Shadows::find(args.id(0), true);
  if (shadows != nullptr) shadows->put(table, numbers, bytes.data, crcs.data, depths.data);
  return info.Env().Undefined();
}

/** The job's turn, once it has come: it ends whatever happens, or those behind it would wait for ever. */
class Turn {
 public:
  Turn(Shadows& shadows, const Shadows::Job& job) : shadows_(shadows), job_(job) {}
  Turn(const Turn&) = delete;
  Turn& operator=(const Turn&) = delete;
  ~Turn() { shadows_.end(job_); }

 private:
  Shadows& shadows_;
  const Shadows::Job& job_;
};

Shadows::Job jobOf(const Args& args) {
  const std::vector<uint32_t> order = args.uint32s(1, "job");
  need(order.size() == 7 && order[4] <= static_cast<uint32_t>(Shadows::Mode::kAhead), "job must be [table, generation, turn, sequence, mode, maxDepth, maxWords]");
  return {order[0], order[1], order[2], order[3], static_cast<Shadows::Mode>(order[4]), std::min<uint32_t>(order[5], 254), order[6]};
}

/** False when the environment is ending. Throws ERR_DEAD. */
bool awaitTurn(Napi::Env env, Shadows& shadows, const Shadows::Job& job) {
  while (!shadows.awaitTurn(job)) {
    if (!mayGoOn(env)) return false;
  }
  return true;
}

Napi::Value shadowSkip(const Napi::CallbackInfo& info) {
  const Args args(info);
  const Shadows::Job job = jobOf(args);
  const std::shared_ptr<Shadows> shadows = Shadows::find(args.id(0));
  if (awaitTurn(info.Env(), *shadows, job)) shadows->end(job);
  return info.Env().Undefined();
}

Napi::Value shadowEncode(const Napi::CallbackInfo& info) {
  const Args args(info);
  const Shadows::Job job = jobOf(args);
  const std::vector<uint32_t> numbers = args.uint32s(2, "pages");
  const std::vector<uint32_t> forgotten = args.uint32s(3, "forgotten");
  const Span<uint8_t> bytes = args.bytes(4, "bytes");
  const Span<uint8_t> deltas = args.bytes(5, "deltas");
  const Span<uint8_t> kinds = args.bytes(6, "kinds");
  const Span<uint32_t> crcs = args.words(7, "crcs");
  const Span<uint32_t> bases = args.words(8, "bases");
  const size_t count = numbers.size();
  need(bytes.length / kPageSize >= count && deltas.length / kPageSize >= count, "bytes and deltas must hold all pages");
  need(kinds.length >= count && crcs.length >= count && bases.length >= count, "kinds, crcs and bases must hold all pages");
  const std::shared_ptr<Shadows> shadows = Shadows::find(args.id(0));
  const Napi::Env env = info.Env();
  if (!awaitTurn(env, *shadows, job)) return env.Undefined();
  const Turn turn(*shadows, job);
  shadows->encode(job, forgotten, {numbers, bytes.data, deltas.data, reinterpret_cast<PageKind*>(kinds.data), crcs.data, bases.data});
  return env.Undefined();
}
}  // namespace

void defineShadow(Napi::Object exports) {
  define<shadowsCreate>(exports, "shadowsCreate");
  define<shadowsJoin>(exports, "shadowsJoin");
  define<shadowsUsed>(exports, "shadowsUsed");
  define<shadowsClose>(exports, "shadowsClose");
  define<shadowOpen>(exports, "shadowOpen");
  define<shadowClose>(exports, "shadowClose");
  define<shadowFail>(exports, "shadowFail");
  define<shadowDrop>(exports, "shadowDrop");
  define<shadowForget>(exports, "shadowForget");
  define<shadowPut>(exports, "shadowPut");
  define<shadowSkip>(exports, "shadowSkip");
  define<shadowEncode>(exports, "shadowEncode");
  define<shadowCorrupt>(exports, "shadowCorrupt");
}

}  // namespace tidemark
