#include <string>
#include <vector>

#include "api.h"
#include "args.h"
#include "errors.h"
#include "field_reader.h"
#include "run_columns.h"
#include "version_kind.h"

// The layers of the page tables of levels (docs/format.md): tens of thousands of runs, for a thread that has just started.

namespace tidemark {

namespace {
/** What a run takes at least: page, count and kind. */
constexpr uint64_t kLeastRunBytes = 3;

struct Layer {
  RunColumns runs;
  std::vector<uint8_t> kinds;
  /** Pages that do not become zero. */
  uint64_t stored = 0;
  uint64_t deltas = 0;
};

Layer readLayer(FieldReader& read, uint64_t count, bool mayBeZero) {
  if (count > read.remaining() / kLeastRunBytes) throw Damage{"claims " + std::to_string(count) + " runs"};
  Layer layer;
  uint64_t end = 0;
  int64_t record = 0;
  for (uint64_t k = 0; k < count; k++) {
    const uint64_t first = end + read.varint();
    const uint64_t length = read.varint();
    const uint8_t kind = read.u8();
    end = first + length;
    if (end > kMaxPages || length >= kMaxPages) throw Damage{"names page " + std::to_string(end)};
    const bool isStored = kind == kFull || kind == kDelta;
    if (!isStored && !(mayBeZero && kind == kZero)) throw Damage{"has a version of kind " + std::to_string(kind)};
    if (isStored) {
      record += read.zigzag();
      if (record < 1 || record > kMaxRecord) throw Damage{"names record " + std::to_string(record)};
      layer.stored += length;
      if (kind == kDelta) layer.deltas += length;
    }
    layer.runs.add(record, first, length, isStored ? read.u8() : 0);
    layer.kinds.push_back(kind);
  }
  return layer;
}

Napi::Value decodeLayer(const Napi::CallbackInfo& info) {
  const Args args(info);
  const Span<uint8_t> bytes = args.bytes(0, "bytes");
  const uint64_t offset = args.integer(1, "offset", bytes.length);
  const uint64_t count = args.integer(2, "count", kMaxSafe);
  const bool mayBeZero = args.boolean(3, "mayBeZero");
  const Napi::Env env = info.Env();
  FieldReader read(bytes, offset);
  try {
    const Layer layer = readLayer(read, count, mayBeZero);
    Napi::Object columns = layer.runs.toObject(env);
    columns.Set("kinds", column<Napi::Uint8Array>(env, layer.kinds));
    columns.Set("stored", Napi::Number::New(env, static_cast<double>(layer.stored)));
    columns.Set("deltas", Napi::Number::New(env, static_cast<double>(layer.deltas)));
    columns.Set("next", Napi::Number::New(env, static_cast<double>(read.at())));
    return columns;
  } catch (const Damage& damage) {
    return Napi::String::New(env, damage.what);
  }
}
}  // namespace

void defineLevelTable(Napi::Object exports) { define<decodeLayer>(exports, "decodeLayer"); }

}  // namespace tidemark
