#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "api.h"
#include "args.h"
#include "copy.h"
#include "errors.h"
#include "field_reader.h"
#include "run_columns.h"

// The lists of extents in manifests (docs/format.md): in JavaScript, in a thread that has just started, a list of a GiB took 25 ms.

namespace tidemark {

namespace {
struct Extent {
  int64_t record;
  uint32_t slots;
  Runs dead;
  Runs pages;
};

uint64_t countPages(const Runs& runs) {
  uint64_t count = 0;
  for (const Run& run : runs) count += run.count;
  return count;
}

Runs readRuns(FieldReader& read, uint64_t from, uint64_t pageCount) {
  const uint64_t count = read.varint();
  if (count > read.remaining()) throw Damage{"claims " + std::to_string(count) + " runs of pages"};
  Runs runs;
  uint64_t end = from;
  for (uint64_t k = 0; k < count; k++) {
    const uint64_t first = end + read.varint();
    const uint64_t length = read.varint();
    end = first + length;
    if (length == 0 || length > kSegmentPages || end > pageCount) throw Damage{"names page " + std::to_string(end) + " of " + std::to_string(pageCount)};
    runs.push_back({static_cast<uint32_t>(first), static_cast<uint32_t>(length)});
  }
  return runs;
}

/** @param claimed pages of the extents before it: a checksum has to follow for each, or memory would be taken for what is only claimed */
Extent readExtent(FieldReader& read, int64_t& record, uint64_t& end, uint64_t& claimed, uint64_t pageCount) {
  record += read.zigzag();
  const uint64_t slots = read.varint();
  if (record < 1 || record > kMaxRecord || slots < 1 || slots > kSegmentPages)
    throw Damage{"names an extent of " + std::to_string(slots) + " pages, record " + std::to_string(record)};
  Runs dead = readRuns(read, 0, slots);
  const int64_t first = static_cast<int64_t>(end) + read.zigzag();
  if (first < 0) throw Damage{"names page " + std::to_string(first)};
  Runs pages = readRuns(read, static_cast<uint64_t>(first), pageCount);
  const uint64_t live = slots - countPages(dead);
  if (countPages(pages) != live || live == 0)
    throw Damage{"has " + std::to_string(countPages(pages)) + " pages in " + std::to_string(live) + " slots"};
  claimed += live;
  if (claimed * 4 > read.remaining()) throw Damage{"claims " + std::to_string(claimed) + " pages"};
  end = static_cast<uint64_t>(pages.back().first) + pages.back().count;
  return {record, static_cast<uint32_t>(slots), std::move(dead), std::move(pages)};
}

void addRuns(RunColumns& runs, const Extent& extent) {
  uint32_t slot = 0;
  auto dead = extent.dead.begin();
  for (const Run& run : extent.pages) {
    for (uint32_t done = 0; done < run.count;) {
      while (dead != extent.dead.end() && dead->first <= slot) slot = std::max(slot, dead->first + dead->count), dead++;
      const uint32_t until = dead == extent.dead.end() ? extent.slots : dead->first;
      const uint32_t length = std::min(run.count - done, until - slot);
      runs.add(extent.record, run.first + done, length, slot);
      done += length;
      slot += length;
    }
  }
}

Napi::Value decodeExtents(const Napi::CallbackInfo& info) {
  const Args args(info);
  const Span<uint8_t> bytes = args.bytes(0, "bytes");
  const uint64_t offset = args.integer(1, "offset", bytes.length);
  const uint64_t pageCount = args.integer(2, "pageCount", kMaxPages);
  FieldReader read(bytes, offset);
  try {
    const uint64_t count = read.varint();
    if (count > read.remaining()) throw Damage{"claims " + std::to_string(count) + " extents"};
    RunColumns runs;
    std::vector<uint16_t> counts;
    std::vector<uint32_t> ends;
    int64_t record = 0;
    uint64_t end = 0;
    uint64_t claimed = 0;
    for (uint64_t k = 0; k < count; k++) {
      const Extent extent = readExtent(read, record, end, claimed, pageCount);
      addRuns(runs, extent);
      counts.push_back(static_cast<uint16_t>(extent.slots));
      ends.push_back(static_cast<uint32_t>(runs.count()));
    }
    const Napi::Env env = info.Env();
    Napi::Object columns = runs.toObject(env);
    columns.Set("counts", column<Napi::Uint16Array>(env, counts));
    columns.Set("ends", column<Napi::Uint32Array>(env, ends));
    columns.Set("pageCount", Napi::Number::New(env, static_cast<double>(claimed)));
    columns.Set("next", Napi::Number::New(env, static_cast<double>(read.at())));
    return columns;
  } catch (const Damage& damage) {
    return Napi::String::New(info.Env(), damage.what);
  }
}
}  // namespace

void defineStoredExtents(Napi::Object exports) { define<decodeExtents>(exports, "decodeExtents"); }

}  // namespace tidemark
