#include "shadow.h"

#include <sys/mman.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "crc32c.h"
#include "errors.h"
#include "registry.h"

namespace tidemark {

namespace {
constexpr auto kSlice = std::chrono::milliseconds(50);
/** How many frames are looked at for one that may go. */
constexpr uint32_t kSweep = 64;
constexpr uint8_t kHottest = 3;
constexpr size_t kBlock = 512;

Registry<Shadows>& registry() {
  static Registry<Shadows>& instance = *new Registry<Shadows>();
  return instance;
}

/** `delta = page ^ shadow`; how many of its words are not zero, or more than `most` as soon as that is clear. */
uint32_t difference(const uint8_t* page, const uint8_t* shadow, uint8_t* delta, uint32_t most) {
  uint32_t words = 0;
  for (size_t at = 0; at < kPageSize && words <= most; at += kBlock) {
    // A loop of fixed length that the compiler turns into vector instructions.
    uint64_t a[kBlock / 8];
    uint64_t b[kBlock / 8];
    memcpy(a, page + at, kBlock);
    memcpy(b, shadow + at, kBlock);
    uint32_t some = 0;
    for (size_t k = 0; k < kBlock / 8; k++) {
      a[k] ^= b[k];
      some += a[k] != 0;
    }
    memcpy(delta + at, a, kBlock);
    words += some;
  }
  return words;
}
}  // namespace

uint32_t Shadows::create(uint64_t byteLength) {
  return registry().add([byteLength](uint32_t) { return std::make_shared<Shadows>(byteLength); });
}

std::shared_ptr<Shadows> Shadows::find(uint32_t id, bool closedIsFine) {
  std::shared_ptr<Shadows> shadows = registry().find(id);
  if (shadows == nullptr && !closedIsFine) throw closedError("shadows", id);
  return shadows;
}

void Shadows::close(uint32_t id) {
  // The mapping goes with the last job that has it.
  const std::shared_ptr<Shadows> shadows = registry().remove(id);
  if (shadows != nullptr) shadows->wake();
}

void Shadows::kill(uint32_t id) {
  const std::shared_ptr<Shadows> shadows = registry().find(id);
  if (shadows != nullptr) shadows->wake();
}

void Shadows::wake() {
  const std::lock_guard<std::mutex> guard(mutex_);
  dead_ = true;
  ended_.notify_all();
}

Shadows::Shadows(uint64_t byteLength) : limit_(static_cast<uint32_t>(std::min<uint64_t>(byteLength / kPageSize, kNone - 1))) {
  length_ = static_cast<size_t>(limit_) * kPageSize;
  if (length_ == 0) return;
  void* mapped = mmap(nullptr, length_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (mapped == MAP_FAILED) throw SystemError(errno, "mmap");
  memory_ = static_cast<uint8_t*>(mapped);
  // Measured: the kernel takes longer to zero a huge page than to fill 512 small ones, which `store` need not have zeroed.
  madvise(memory_, length_, MADV_NOHUGEPAGE);
  madvise(memory_, length_, MADV_DONTDUMP);
  if (hostPageSize() != kPageSize) return;
  try {
    Attempts attempts;
    Userfault userfault = Userfault::obtain(attempts);
    if (!userfault.valid()) return;
    userfault.enable(0);
    userfault.registerForWrites(memory_, length_);
    userfault_ = std::move(userfault);
  } catch (const SystemError&) {
    // Then they are written like any other memory.
  }
}

Shadows::~Shadows() {
  if (memory_ != nullptr) munmap(memory_, length_);
}

uint32_t Shadows::openTable() {
  const std::lock_guard<std::mutex> guard(mutex_);
  tables_.emplace(nextTable_, Table{});
  return nextTable_++;
}

void Shadows::closeTable(uint32_t table) {
  const std::lock_guard<std::mutex> guard(mutex_);
  dropWhere(table, true, 0, 0);
  tables_.erase(table);
  // Nobody has any: the memory goes back.
  if (free_.size() == frames_.size() && !frames_.empty()) {
    frames_.clear();
    free_.clear();
    hand_ = 0;
    madvise(memory_, length_, MADV_DONTNEED);
  }
  ended_.notify_all();
}

uint32_t Shadows::fail(uint32_t table, uint32_t sequence) {
  const std::lock_guard<std::mutex> guard(mutex_);
  const auto found = tables_.find(table);
  if (found == tables_.end()) throw closedError("shadow table", table);
  dropWhere(table, false, sequence, UINT32_MAX);
  found->second.dropped.clear();
  found->second.ended = 0;
  ended_.notify_all();
  return ++found->second.generation;
}

void Shadows::drop(uint32_t table, uint32_t sequence) {
  const std::lock_guard<std::mutex> guard(mutex_);
  const auto found = tables_.find(table);
  if (found == tables_.end()) return;
  dropWhere(table, false, sequence, sequence);
  found->second.dropped.push_back(sequence);
}

/** What a job holds it lets go by itself when it ends: it finds its generation or its checkpoint gone. */
void Shadows::dropWhere(uint32_t table, bool all, uint32_t from, uint32_t to) {
  const auto found = tables_.find(table);
  if (found == tables_.end()) return;
  for (const auto& chunk : found->second.chunks) {
    if (chunk == nullptr) continue;
    for (uint32_t& frame : *chunk) {
      if (frame == kNone || frames_[frame].held) continue;
      if (!all && (frames_[frame].writer < from || frames_[frame].writer > to)) continue;
      free_.push_back(frame);
      frame = kNone;
    }
  }
}

void Shadows::forget(uint32_t table, const Runs& runs) {
  const std::lock_guard<std::mutex> guard(mutex_);
  const auto found = tables_.find(table);
  if (found == tables_.end()) return;
  for (const Run& run : runs) {
    for (uint32_t k = 0; k < run.count; k++) {
      const uint32_t frame = lookUp(found->second, run.first + k);
      if (frame != kNone) retire(frame);
    }
  }
}

void Shadows::put(uint32_t table, const std::vector<uint32_t>& numbers, const uint8_t* bytes, const uint32_t* crcs, const uint8_t* depths) {
  const size_t count = numbers.size();
  std::vector<Claim> claims(count, Claim{kNone, false, false, 0, 0});
  {
    const std::lock_guard<std::mutex> guard(mutex_);
    const auto found = tables_.find(table);
    if (found == tables_.end()) return;
    for (size_t k = 0; k < count; k++) {
      uint32_t frame = lookUp(found->second, numbers[k]);
      // What a void job of a failed checkpoint still holds goes when that ends.
      if (frame != kNone && frames_[frame].held) continue;
      if (frame == kNone) frame = assign(table, found->second, numbers[k], 0, false);
      if (frame == kNone) continue;
      frames_[frame].held = true;
      claims[k] = {frame, false, frames_[frame].present, crcs[k], depths[k]};
    }
  }
  store(claims, bytes);
  const std::lock_guard<std::mutex> guard(mutex_);
  const bool isVoid = tables_.find(table) == tables_.end();
  for (const Claim& claim : claims) {
    if (claim.frame == kNone) continue;
    Frame& frame = frames_[claim.frame];
    frame.held = false;
    frame.present = true;
    frame.writer = 0;
    frame.crc = claim.crc;
    frame.depth = claim.depth;
    if (isVoid || frame.outdated) release(claim.frame);
  }
}

void Shadows::store(const std::vector<Claim>& claims, const uint8_t* bytes) {
  const auto isWanted = [&](size_t k) { return k < claims.size() && claims[k].frame != kNone && !claims[k].usable; };
  for (size_t k = 0; k < claims.size(); k++) {
    if (!isWanted(k)) continue;
    const uint8_t* source = bytes + k * kPageSize;
    if (claims[k].present || !userfault_.valid()) {
      memcpy(content(claims[k].frame), source, kPageSize);
      continue;
    }
    // Frames that have no memory yet lie in a row: one call, and no page that is zeroed only to be overwritten.
    size_t end = k + 1;
    while (isWanted(end) && !claims[end].present && claims[end].frame == claims[end - 1].frame + 1) end++;
    const size_t length = (end - k) * kPageSize;
    int error = 0;
    const size_t copied = userfault_.copy(content(claims[k].frame), source, length, false, error);
    memcpy(content(claims[k].frame) + copied, source + copied, length - copied);
    k = end - 1;
  }
}

Shadows::Table* Shadows::current(const Job& job) {
  const auto found = tables_.find(job.table);
  return found == tables_.end() || found->second.generation != job.generation ? nullptr : &found->second;
}

bool Shadows::awaitTurn(const Job& job) {
  std::unique_lock<std::mutex> lock(mutex_);
  const auto due = [&] {
    const Table* table = current(job);
    return dead_ || table == nullptr || table->ended >= job.turn;
  };
  const bool now = ended_.wait_for(lock, kSlice, due);
  const Table* table = current(job);
  // Only who waits for a job that will not end has to be told.
  if (dead_ && table != nullptr && table->ended < job.turn) throw CodedError("ERR_DEAD", "a thread that encodes has ended");
  return now;
}

void Shadows::end(const Job& job) {
  const std::lock_guard<std::mutex> guard(mutex_);
  Table* table = current(job);
  if (table != nullptr) table->ended++;
  ended_.notify_all();
}

void Shadows::encode(const Job& job, const std::vector<uint32_t>& forgotten, const Pages& pages) {
  const size_t count = pages.numbers.size();
  std::vector<Claim> claims(count, Claim{kNone, false, false, 0, 0});
  {
    const std::lock_guard<std::mutex> guard(mutex_);
    Table* table = current(job);
    if (table != nullptr) {
      const bool isDropped = std::find(table->dropped.begin(), table->dropped.end(), job.sequence) != table->dropped.end();
      for (const uint32_t page : forgotten) {
        const uint32_t frame = lookUp(*table, page);
        if (frame != kNone) retire(frame);
      }
      for (size_t k = 0; k < count; k++) {
        uint32_t frame = lookUp(*table, pages.numbers[k]);
        // A job of an older generation has it still.
        if (frame != kNone && frames_[frame].held) {
          retire(frame);
          continue;
        }
        if (job.mode == Mode::kAhead || isDropped) {
          if (frame != kNone) release(frame);
          continue;
        }
        const bool known = frame != kNone;
        if (!known) frame = assign(job.table, *table, pages.numbers[k], job.sequence, job.mode == Mode::kWritten);
        if (frame == kNone) continue;
        frames_[frame].held = true;
        claims[k] = {frame, known && job.mode == Mode::kWritten, frames_[frame].present, frames_[frame].crc, frames_[frame].depth};
      }
    }
  }
  size_t full = 0;
  size_t deltas = 0;
  crc32cPages(pages.bytes, count, pages.crcs);
  store(claims, pages.bytes);
  for (size_t k = 0; k < count; k++) {
    const uint8_t* page = pages.bytes + k * kPageSize;
    PageKind kind = PageKind::kFull;
    pages.bases[k] = 0;
    // Held: nobody else reads or writes the frame.
    const Claim& claim = claims[k];
    if (claim.usable) {
      const uint8_t* shadow = content(claim.frame);
      const uint32_t words = difference(page, shadow, pages.deltas + deltas * kPageSize, job.maxWords);
      const bool pays = words == 0 || (words <= job.maxWords && claim.depth < job.maxDepth);
      // The shadow is looked at last: where the page is stored full it does not matter what it holds.
      if (pays && crc32c(0, shadow, kPageSize) == claim.crc) {
        kind = words == 0 ? PageKind::kUnchanged : PageKind::kDelta;
        pages.bases[k] = claim.crc;
      }
    }
    pages.kinds[k] = kind;
    if (claim.usable && kind != PageKind::kUnchanged) memcpy(content(claim.frame), page, kPageSize);
    if (kind == PageKind::kDelta) {
      deltas++;
    } else if (kind == PageKind::kFull) {
      uint8_t* target = pages.bytes + full * kPageSize;
      if (target != page) memcpy(target, page, kPageSize);
      full++;
    }
  }
  const std::lock_guard<std::mutex> guard(mutex_);
  const Table* table = current(job);
  const bool isVoid = table == nullptr || std::find(table->dropped.begin(), table->dropped.end(), job.sequence) != table->dropped.end();
  for (size_t k = 0; k < count; k++) {
    if (claims[k].frame == kNone) continue;
    Frame& frame = frames_[claims[k].frame];
    frame.held = false;
    frame.present = true;
    if (isVoid || frame.outdated) {
      release(claims[k].frame);
      continue;
    }
    // The bytes are those of an older checkpoint: when this one fails they are still right.
    if (pages.kinds[k] != PageKind::kUnchanged) {
      frame.writer = job.sequence;
      frame.crc = pages.crcs[k];
      frame.depth = pages.kinds[k] == PageKind::kDelta ? static_cast<uint8_t>(claims[k].depth + 1) : 0;
    }
    if (job.mode == Mode::kWritten) frame.heat = std::min<uint8_t>(kHottest, frame.heat + 1);
  }
}

uint32_t Shadows::lookUp(const Table& table, uint32_t page) const {
  const size_t chunk = page / kChunkPages;
  if (chunk >= table.chunks.size() || table.chunks[chunk] == nullptr) return kNone;
  return (*table.chunks[chunk])[page % kChunkPages];
}

void Shadows::enter(Table& table, uint32_t page, uint32_t frame) {
  const size_t chunk = page / kChunkPages;
  if (chunk >= table.chunks.size()) table.chunks.resize(chunk + 1);
  if (table.chunks[chunk] == nullptr) {
    table.chunks[chunk] = std::make_unique<Chunk>();
    table.chunks[chunk]->fill(kNone);
  }
  (*table.chunks[chunk])[page % kChunkPages] = frame;
}

uint32_t Shadows::assign(uint32_t number, Table& table, uint32_t page, uint32_t writer, bool evict) {
  const uint32_t frame = take(evict);
  if (frame == kNone) return kNone;
  frames_[frame] = {number, page, writer, 0, 0, 0, false, false, frames_[frame].present};
  enter(table, page, frame);
  return frame;
}

uint32_t Shadows::take(bool evict) {
  if (!free_.empty()) {
    const uint32_t frame = free_.back();
    free_.pop_back();
    return frame;
  }
  if (frames_.size() < limit_) {
    frames_.push_back({});
    return static_cast<uint32_t>(frames_.size() - 1);
  }
  for (uint32_t k = 0; evict && k < kSweep && limit_ > 0; k++) {
    hand_ = hand_ + 1 < limit_ ? hand_ + 1 : 0;
    Frame& frame = frames_[hand_];
    if (frame.held) continue;
    if (frame.heat > 0) {
      frame.heat--;
      continue;
    }
    release(hand_);
    free_.pop_back();
    return hand_;
  }
  return kNone;
}

void Shadows::retire(uint32_t frame) {
  if (frames_[frame].held) frames_[frame].outdated = true;
  else release(frame);
}

void Shadows::release(uint32_t frame) {
  const auto table = tables_.find(frames_[frame].table);
  if (table != tables_.end() && lookUp(table->second, frames_[frame].page) == frame) enter(table->second, frames_[frame].page, kNone);
  free_.push_back(frame);
}

uint64_t Shadows::usedBytes() {
  const std::lock_guard<std::mutex> guard(mutex_);
  return (frames_.size() - free_.size()) * kPageSize;
}

void Shadows::corrupt(uint32_t table) {
  const std::lock_guard<std::mutex> guard(mutex_);
  for (size_t k = 0; k < frames_.size(); k++) {
    // Not what a job has just found right and works with: that would be stored.
    if (frames_[k].table == table && !frames_[k].held) content(static_cast<uint32_t>(k))[7] ^= 0x10;
  }
}

}  // namespace tidemark
