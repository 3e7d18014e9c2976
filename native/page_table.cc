#include <sys/mman.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <numeric>

#include "api.h"
#include "args.h"
#include "errors.h"
#include "uffd_abi.h"
#include "version_kind.h"

// The loops over page tables (lib/chain/page-table.ts): in JavaScript they are slow in a thread that has just started, and a lazy restore waits for them.

namespace tidemark {

namespace {
constexpr uint8_t kKindMask = 0x0f;
constexpr size_t kVersionBytes = 12;
constexpr uint8_t kMostOlder = 64;
constexpr size_t kLeastPopulated = 256 << 10;

/** Versions field by field, as lib/chain/version-columns.ts lays them out. */
struct Versions {
  explicit Versions(Span<uint8_t> bytes)
      : count(bytes.length / kVersionBytes),
        extra(reinterpret_cast<uint32_t*>(bytes.data)),
        recordLow(extra + count),
        recordHigh(reinterpret_cast<uint16_t*>(recordLow + count)),
        slot(reinterpret_cast<uint8_t*>(recordHigh + count)),
        state(slot + count) {
    if (bytes.length % kVersionBytes != 0 || reinterpret_cast<uintptr_t>(bytes.data) % alignof(uint32_t) != 0)
      throw ArgumentError(ArgumentError::kRange, "versions must be whole and aligned");
  }

  uint8_t kind(size_t at) const { return state[at] & kKindMask; }

  void set(size_t at, uint64_t record, uint8_t slotOfPage, uint32_t extraOfPage, uint8_t stateOfPage) {
    extra[at] = extraOfPage;
    recordLow[at] = static_cast<uint32_t>(record);
    recordHigh[at] = static_cast<uint16_t>(record >> 32);
    slot[at] = slotOfPage;
    state[at] = stateOfPage;
  }

  size_t count;
  /** The CRC32C of a newest version, the next node of an older one. */
  uint32_t* extra;
  uint32_t* recordLow;
  uint16_t* recordHigh;
  uint8_t* slot;
  uint8_t* state;
};

template <typename T>
void populateColumn(T* from, size_t count) {
  constexpr uintptr_t kMask = kPageSize - 1;
  const uintptr_t start = (reinterpret_cast<uintptr_t>(from) + kMask) & ~kMask;
  const uintptr_t end = reinterpret_cast<uintptr_t>(from + count) & ~kMask;
  // It may fail (before Linux 5.14 there is no such thing): then it is touched page by page.
  if (end > start + kLeastPopulated) madvise(reinterpret_cast<void*>(start), end - start, MADV_POPULATE_WRITE);
}

/** Pages whose versions lie in consecutive slots of one record. */
struct VersionRun {
  uint8_t kind;
  uint64_t record;
  uint32_t first;
  uint32_t length;
  uint8_t slot;
  /** Of the pages, 4 bytes each, perhaps not aligned; null: of older versions none are kept. */
  const uint8_t* crcs;

  uint32_t crc(uint32_t k) const {
    uint32_t crc = 0;
    if (crcs != nullptr) std::memcpy(&crc, crcs + static_cast<size_t>(k) * 4, 4);
    return crc;
  }
};

/** A page table that is filled from the newest checkpoint to the oldest: a page takes versions until it has a full one. */
class Loading {
 public:
  enum class Put { kDone, kTooDeep, kNoRoom };

  explicit Loading(const Args& args)
      : table_(args.bytes(0, "table")),
        pool_(args.bytes(1, "pool")),
        first_(args.words(2, "first")),
        last_(args.words(3, "last")),
        counts_(args.bytes(4, "counts")),
        counters_(args.words(5, "counters")),
        levels_(static_cast<uint8_t>(args.integer(6, "levels", 15))),
        done_(counters_.length == 3 ? counters_.data[2] : 0) {
    if (counters_.length != 3 || last_.length != first_.length || counts_.length != first_.length)
      throw ArgumentError(ArgumentError::kRange, "lists must be of the same length, and the counters three");
  }

  size_t pageCount() const { return table_.count; }

  /**
   * The memory of the pages between the first and the last of these runs is had at once, for touched page by page it takes up to 2.5 us a page of it. Only where there is
   * a checksum for more than half of them: what a record merely claims is not touched.
   */
  void populate(Span<uint32_t> firsts, Span<uint32_t> lengths, Span<uint8_t> crcs) {
    size_t first = pageCount();
    size_t end = 0;
    for (size_t k = 0; k < firsts.length; k++) {
      first = std::min<size_t>(first, firsts.data[k]);
      end = std::max<size_t>(end, std::min<size_t>(pageCount(), size_t{firsts.data[k]} + lengths.data[k]));
    }
    if (end <= first || crcs.length / 4 <= (end - first) / 2) return;
    populateColumn(table_.extra + first, end - first);
    populateColumn(table_.recordLow + first, end - first);
    populateColumn(table_.slot + first, end - first);
    populateColumn(table_.state + first, end - first);
  }

  /** In the order in which an earlier call that ran out of room had them. @param page where it ends early */
  Put putRun(const VersionRun& run, uint32_t& page) {
    if (seen_ >= done_ && putUnknown(run)) return Put::kDone;
    for (uint32_t k = 0; k < run.length; k++) {
      page = run.first + k;
      const Put result = put(run, k);
      if (result != Put::kDone) return result;
    }
    return Put::kDone;
  }

  Napi::Value result(Napi::Env env, Put put, uint32_t page) {
    counters_.data[2] = put == Put::kNoRoom ? seen_ : 0;
    return Napi::Number::New(env, put == Put::kNoRoom ? kNoRoom : page);
  }

 private:
  static constexpr double kNoRoom = -1;

  /** Where nothing is known of any of them, as in most of a full checkpoint. */
  bool putUnknown(const VersionRun& run) {
    const uint8_t* const states = table_.state + run.first;
    if (std::any_of(states, states + run.length, [](uint8_t state) { return (state & kKindMask) != kAbsent; })) return false;
    std::fill_n(table_.state + run.first, run.length, stateOf(run.kind));
    seen_ += run.length;
    if (run.kind == kZero) return true;
    std::fill_n(table_.recordLow + run.first, run.length, static_cast<uint32_t>(run.record));
    // What is zero is not written: of fresh memory that takes none.
    if (run.record >> 32 != 0) std::fill_n(table_.recordHigh + run.first, run.length, static_cast<uint16_t>(run.record >> 32));
    std::iota(table_.slot + run.first, table_.slot + run.first + run.length, run.slot);
    if (run.crcs != nullptr) std::memcpy(table_.extra + run.first, run.crcs, static_cast<size_t>(run.length) * 4);
    if (run.kind == kDelta) counters_.data[1] += run.length;
    return true;
  }

  Put put(const VersionRun& run, uint32_t k) {
    if (seen_ < done_) return seen_++, Put::kDone;
    const uint32_t page = run.first + k;
    const uint8_t known = table_.kind(page);
    const auto slot = static_cast<uint8_t>(run.slot + k);
    Put result = Put::kDone;
    if (known == kAbsent && run.kind == kZero) {
      table_.state[page] = stateOf(kZero);
    } else if (known == kAbsent) {
      table_.set(page, run.record, slot, run.crc(k), stateOf(run.kind));
      if (run.kind == kDelta) counters_.data[1]++;
    } else if (known == kDelta && run.kind != kZero) {
      result = append(page, run.kind, run.record, slot);
    }
    if (result == Put::kDone) seen_++;
    return result;
  }

  Put append(uint32_t page, uint8_t kind, uint64_t record, uint8_t slot) {
    if (page >= first_.length) return Put::kNoRoom;
    const uint32_t last = last_.data[page];
    if (last >= pool_.count) throw ArgumentError(ArgumentError::kRange, "lists must lie within the pool");
    if (last != 0 && pool_.kind(last) == kFull) return Put::kDone;
    if (counts_.data[page] == kMostOlder) return Put::kTooDeep;
    const uint32_t node = counters_.data[0];
    if (node >= pool_.count) return Put::kNoRoom;
    counters_.data[0]++;
    pool_.set(node, record, slot, 0, stateOf(kind));
    if (last == 0) first_.data[page] = node;
    else pool_.extra[last] = node;
    last_.data[page] = node;
    counts_.data[page]++;
    if (kind == kFull) counters_.data[1]--;
    return Put::kDone;
  }

  uint8_t stateOf(uint8_t kind) const { return static_cast<uint8_t>(kind | levels_ << 4); }

  Versions table_;
  Versions pool_;
  Span<uint32_t> first_;
  Span<uint32_t> last_;
  Span<uint8_t> counts_;
  Span<uint32_t> counters_;
  uint8_t levels_;
  /** Versions that an earlier call has added, and that this one has been given. */
  uint32_t done_;
  uint32_t seen_ = 0;
};

bool isRecord(double number) { return number >= 0 && number < 65536 * 4294967296.0; }

Napi::Value tableAddRuns(const Napi::CallbackInfo& info) {
  const Args args(info);
  Loading table(args);
  const Span<uint8_t> kinds = args.bytes(7, "kinds");
  const Span<double> records = args.doubles(8, "records");
  const Span<uint32_t> firsts = args.words(9, "firsts");
  const Span<uint32_t> lengths = args.words(10, "lengths");
  const Span<uint8_t> slots = args.bytes(11, "slots");
  const Span<uint8_t> crcs = args.bytes(12, "crcs");
  const size_t runs = firsts.length;
  if (lengths.length != runs || kinds.length != runs || records.length != runs || slots.length != runs)
    throw ArgumentError(ArgumentError::kRange, "the columns must be of the same length");
  table.populate(firsts, lengths, crcs);
  size_t stored = 0;
  for (size_t k = 0; k < runs; k++) {
    const uint8_t kind = kinds.data[k];
    if (kind < kZero || kind > kDelta) throw ArgumentError(ArgumentError::kRange, "kinds must be of versions");
    if (!isRecord(records.data[k])) throw ArgumentError(ArgumentError::kRange, "records must be numbers of records");
    VersionRun run{kind, static_cast<uint64_t>(records.data[k]), firsts.data[k], lengths.data[k], slots.data[k], nullptr};
    if (kind != kZero) {
      if (crcs.length > 0 && (crcs.length / 4 < stored || crcs.length / 4 - stored < run.length))
        throw ArgumentError(ArgumentError::kRange, "crcs must be empty, or have one for each page");
      if (crcs.length > 0) run.crcs = crcs.data + stored * 4;
      stored += run.length;
    }
    // What lies behind the table belongs to a region that was longer.
    if (run.first >= table.pageCount()) continue;
    run.length = static_cast<uint32_t>(std::min<size_t>(run.length, table.pageCount() - run.first));
    uint32_t page = 0;
    const Loading::Put put = table.putRun(run, page);
    if (put != Loading::Put::kDone) return table.result(info.Env(), put, page);
  }
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

/** What versions of a region contribute to the state of a chain (docs/format.md). */
class StateSum {
 public:
  explicit StateSum(uint64_t region) : salt_((region + 1) * 0x9e3779b97f4a7c15) {}
  void add(size_t page, uint32_t crc) { sum_ += mix64((static_cast<uint64_t>(page) << 32 | crc) + salt_); }
  Napi::Value value(Napi::Env env) const { return Napi::BigInt::New(env, sum_); }

 private:
  uint64_t salt_;
  uint64_t sum_ = 0;
};

Napi::Value stateSum(const Napi::CallbackInfo& info) {
  const Args args(info);
  StateSum sum(args.integer(0, "region", UINT32_MAX));
  const Span<uint32_t> pages = args.words(1, "pages");
  const Span<uint32_t> crcs = args.words(2, "crcs");
  if (pages.length != crcs.length) throw ArgumentError(ArgumentError::kRange, "pages and crcs must be of the same length");
  for (size_t k = 0; k < pages.length; k++) sum.add(pages.data[k], crcs.data[k]);
  return sum.value(info.Env());
}

Napi::Value tableSum(const Napi::CallbackInfo& info) {
  const Args args(info);
  StateSum sum(args.integer(0, "region", UINT32_MAX));
  const Versions table(args.bytes(1, "table"));
  for (size_t page = 0; page < table.count; page++) {
    if (table.kind(page) >= kFull) sum.add(page, table.extra[page]);
  }
  return sum.value(info.Env());
}

Napi::Value tableStored(const Napi::CallbackInfo& info) {
  const Versions table(Args(info).bytes(0, "table"));
  Runs runs;
  for (size_t page = 0; page < table.count; page++) {
    if (table.kind(page) >= kFull) append(runs, static_cast<uint32_t>(page));
  }
  return toArray(info.Env(), runs);
}

/** The same bytes, by where they are stored: what is absent and what is zero read the same. */
bool isSameVersion(const Versions& a, const Versions& b, size_t page) {
  const bool isStored = page < a.count && a.kind(page) >= kFull;
  if (isStored != (page < b.count && b.kind(page) >= kFull)) return false;
  return !isStored || (a.recordLow[page] == b.recordLow[page] && a.slot[page] == b.slot[page] && a.recordHigh[page] == b.recordHigh[page]);
}

Napi::Value tableDifferences(const Napi::CallbackInfo& info) {
  const Args args(info);
  const Versions a(args.bytes(0, "a"));
  const Versions b(args.bytes(1, "b"));
  Runs runs;
  for (size_t page = 0; page < std::max(a.count, b.count); page++) {
    if (!isSameVersion(a, b, page)) append(runs, static_cast<uint32_t>(page));
  }
  return toArray(info.Env(), runs);
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
}  // namespace

void definePageTable(Napi::Object exports) {
  define<tableAddRuns>(exports, "tableAddRuns");
  define<tableSum>(exports, "tableSum");
  define<stateSum>(exports, "stateSum");
  define<tableStored>(exports, "tableStored");
  define<tableDifferences>(exports, "tableDifferences");
  define<pick>(exports, "pick");
}

}  // namespace tidemark
