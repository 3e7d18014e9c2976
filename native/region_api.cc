#include <algorithm>
#include <cstring>

#include "api.h"
#include "args.h"
#include "assemble.h"
#include "copy.h"
#include "errors.h"
#include "region.h"

namespace tidemark {

namespace {
Napi::Value regionOpen(const Napi::CallbackInfo& info) {
  const Args args(info);
  const Span<uint8_t> view = args.bytes(0, "view");
  return Napi::Number::New(info.Env(), Region::open(info.Env(), view.data, view.length));
}

Napi::Value regionExtend(const Napi::CallbackInfo& info) {
  const Args args(info);
  const uint32_t id = args.id(0);
  const Span<uint8_t> view = args.bytes(1, "view");
  Region::find(id)->extend(view.data, view.length);
  return info.Env().Undefined();
}

Napi::Value regionReset(const Napi::CallbackInfo& info) {
  const Args args(info);
  const uint32_t id = args.id(0);
  const Span<uint8_t> view = args.bytes(1, "view");
  Region::find(id)->reset(view.data, view.length);
  return info.Env().Undefined();
}

Napi::Value regionClose(const Napi::CallbackInfo& info) {
  Region::close(info.Env(), Args(info).id(0));
  return info.Env().Undefined();
}

Napi::Value regionScan(const Napi::CallbackInfo& info) {
  const Args args(info);
  const uint32_t id = args.id(0);
  const Span<uint8_t> view = args.bytes(1, "view");
  const bool rearm = args.boolean(2, "rearm");
  return toArray(info.Env(), Region::find(id)->scan(view.data, view.length, rearm));
}

Napi::Value regionPopulated(const Napi::CallbackInfo& info) {
  const Args args(info);
  const uint32_t id = args.id(0);
  const Span<uint8_t> view = args.bytes(1, "view");
  const auto fromPage = static_cast<uint32_t>(args.integer(2, "fromPage", UINT32_MAX));
  return toArray(info.Env(), Region::find(id)->populated(view.data, view.length, fromPage));
}

Napi::Value regionGiveBack(const Napi::CallbackInfo& info) {
  const Args args(info);
  const uint32_t id = args.id(0);
  const Span<uint8_t> view = args.bytes(1, "view");
  const Runs runs = args.runs(2, "runs");
  Region::find(id)->giveBack(view.data, view.length, runs);
  return info.Env().Undefined();
}

/** Nothing is written outside the arrays, and no two threads into the same segment. */
void checkTarget(const CopyTarget& target, const Span<uint8_t>& staging, const Span<uint32_t>& pages, const Span<uint32_t>& counts) {
  const auto fail = [](const char* message) { throw ArgumentError(ArgumentError::kRange, message); };
  std::vector<int32_t> sorted = target.segments;
  std::sort(sorted.begin(), sorted.end());
  if (!sorted.empty() && (sorted.front() < 0 || (static_cast<size_t>(sorted.back()) + 1) * kSegmentStride > staging.length)) fail("segments must lie within staging");
  if (std::adjacent_find(sorted.begin(), sorted.end()) != sorted.end()) fail("segments must not occur twice");
  if (pages.length / kSegmentPages < sorted.size()) fail("pages must hold 256 numbers for each segment");
  if (counts.length / 2 < sorted.size()) fail("counts must hold 2 numbers for each segment");
}

Napi::Value copyPagesVerb(const Napi::CallbackInfo& info) {
  const Args args(info);
  const uint32_t id = args.id(0);
  const Span<uint8_t> view = args.bytes(1, "view");
  const Runs runs = args.runs(2, "runs");
  const uint64_t skip = args.integer(3, "skip", 1ull << 32);
  const Span<uint8_t> staging = args.bytes(4, "staging");
  const Span<uint32_t> pages = args.words(6, "pages");
  const Span<uint32_t> counts = args.words(7, "counts");
  const size_t threads = args.integer(8, "threads", UINT32_MAX);
  const CopyTarget target{staging.data, args.int32s(5, "segments"), pages.data, counts.data};
  checkTarget(target, staging, pages, counts);
  const uint64_t consumed = Region::find(id)->withMemory(view.data, view.length, runs, [&] { return copyPages(view.data, runs, skip, target, threads); });
  return Napi::Number::New(info.Env(), static_cast<double>(consumed));
}

Napi::Value regionFill(const Napi::CallbackInfo& info) {
  const Args args(info);
  const uint32_t id = args.id(0);
  const Span<uint8_t> source = args.bytes(1, "source");
  const std::vector<uint32_t> numbers = args.uint32s(2, "pages");
  if (source.length / kPageSize < numbers.size()) throw ArgumentError(ArgumentError::kRange, "source must hold all pages");
  Region::find(id)->fill(source.data, numbers);
  return info.Env().Undefined();
}

Napi::Value regionZero(const Napi::CallbackInfo& info) {
  const Args args(info);
  const uint32_t id = args.id(0);
  const Runs runs = args.runs(1, "runs");
  Region::find(id)->zero(runs);
  return info.Env().Undefined();
}

Napi::Value regionRead(const Napi::CallbackInfo& info) {
  const Args args(info);
  const uint32_t id = args.id(0);
  const std::vector<uint32_t> numbers = args.uint32s(1, "pages");
  const Window window = windowOf(args, 2);
  Region::find(id)->read(numbers, window.targets(numbers.size()));
  return info.Env().Undefined();
}

Napi::Value assemblePages(const Napi::CallbackInfo& info) {
  const Args args(info);
  const Span<uint8_t> source = args.bytes(0, "source");
  const bool combine = args.boolean(1, "combine");
  const Window window = windowOf(args, 2);
  const std::vector<uint8_t*> targets = window.targets(source.length / kPageSize);
  if (combine) combinePages(source.data, targets);
  else for (size_t k = 0; k < targets.size(); k++) memcpy(targets[k], source.data + k * kPageSize, kPageSize);
  return info.Env().Undefined();
}
}  // namespace

void defineRegion(Napi::Object exports) {
  define<regionOpen>(exports, "regionOpen");
  define<regionExtend>(exports, "regionExtend");
  define<regionReset>(exports, "regionReset");
  define<regionClose>(exports, "regionClose");
  define<regionScan>(exports, "regionScan");
  define<regionPopulated>(exports, "regionPopulated");
  define<regionGiveBack>(exports, "regionGiveBack");
  define<copyPagesVerb>(exports, "copyPages");
  define<regionFill>(exports, "regionFill");
  define<regionZero>(exports, "regionZero");
  define<regionRead>(exports, "regionRead");
  define<assemblePages>(exports, "assemblePages");
}

}  // namespace tidemark
