#pragma once
#include <array>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <vector>

#include "pagemap.h"
#include "userfault.h"

namespace tidemark {

/** What became of a page that was encoded. */
enum class PageKind : uint8_t { kFull = 0, kDelta = 1, kUnchanged = 2 };

/**
 * Copies of pages as they were last captured, against which deltas are made: frames of 4 KiB in one sparse mapping, shared by the tables
 * of an engine. A table belongs to one region of one checkpointer. docs/architecture.md, "Deltas", says in which order they are used and
 * what takes them away. From any thread.
 */
class Shadows {
 public:
  /** How the pages of a job are taken. */
  enum class Mode : uint32_t {
    /** Written since the capture before: deltas where they pay. */
    kWritten = 0,
    /** Everything in the region: stored full, shadows only while there is room. */
    kWhole = 1,
    /** Ahead of a capture: stored full, and no shadow stays. */
    kAhead = 2,
  };
  struct Job {
    uint32_t table;
    uint32_t generation;
    /** It begins when so many jobs of the table's generation have ended. */
    uint32_t turn;
    uint32_t sequence;
    Mode mode;
    uint32_t maxDepth;
    /** A delta with more 64-bit words than this that are not zero is not worth storing. */
    uint32_t maxWords;
  };
  struct Pages {
    const std::vector<uint32_t>& numbers;
    /** Packed; the full ones are packed again at its start. */
    uint8_t* bytes;
    /** The deltas, packed. */
    uint8_t* deltas;
    PageKind* kinds;
    /** CRC32C of each page, and of the shadow that its delta was made against. */
    uint32_t* crcs;
    uint32_t* bases;
  };

  static uint32_t create(uint64_t byteLength);
  /** Throws ERR_CLOSED; null when `closedIsFine`. */
  static std::shared_ptr<Shadows> find(uint32_t id, bool closedIsFine = false);
  /** Idempotent. Waits for nobody: the mapping goes with the last job that is under way. */
  static void close(uint32_t id);
  /** A thread that works for it has ended: those that wait for its jobs get ERR_DEAD. */
  static void kill(uint32_t id);

  explicit Shadows(uint64_t byteLength);
  ~Shadows();
  Shadows(const Shadows&) = delete;
  Shadows& operator=(const Shadows&) = delete;

  uint32_t openTable();
  void closeTable(uint32_t table);
  /** Drops what the checkpoints from `sequence` on have written; the number of the generation that begins. */
  uint32_t fail(uint32_t table, uint32_t sequence);
  /** Drops what one checkpoint has written or will write: its capture failed. */
  void drop(uint32_t table, uint32_t sequence);
  void forget(uint32_t table, const Runs& runs);
  /** Restored pages: a shadow that is there is replaced, another one made while there is room. */
  void put(uint32_t table, const std::vector<uint32_t>& numbers, const uint8_t* bytes, const uint32_t* crcs, const uint8_t* depths);

  /** False when it is not the job's turn after a while. Throws ERR_DEAD. */
  bool awaitTurn(const Job& job);
  /** In its turn. `forgotten`: pages that are zero. */
  void encode(const Job& job, const std::vector<uint32_t>& forgotten, const Pages& pages);
  /** The job has ended, well or not. */
  void end(const Job& job);

  uint64_t usedBytes();
  /** For the tests: changes a byte in every shadow of a table. */
  void corrupt(uint32_t table);

 private:
  static constexpr uint32_t kNone = UINT32_MAX;
  static constexpr uint32_t kChunkPages = 512;
  using Chunk = std::array<uint32_t, kChunkPages>;
  struct Frame {
    uint32_t table;
    uint32_t page;
    uint32_t writer;
    uint32_t crc;
    uint8_t depth;
    uint8_t heat;
    /** A job or a restore works with it. */
    bool held;
    /** Who holds it has to let it go: there is a newer version of the page. */
    bool outdated;
    /** There is memory for it: something was put there before. */
    bool present;
  };
  struct Table {
    uint32_t generation = 0;
    uint32_t ended = 0;
    std::vector<std::unique_ptr<Chunk>> chunks;
    /** Checkpoints of this generation whose capture failed. */
    std::vector<uint32_t> dropped;
  };
  /** What a job has of one page. */
  struct Claim {
    uint32_t frame;
    /** The frame holds the version before. */
    bool usable;
    /** As beside the frame, which may move while it is held. */
    bool present;
    uint32_t crc;
    uint8_t depth;
  };

  /** Those that wait get ERR_DEAD. */
  void wake();
  Table* current(const Job& job);
  uint32_t lookUp(const Table& table, uint32_t page) const;
  void enter(Table& table, uint32_t page, uint32_t frame);
  /** A frame for a page that has none, or kNone. */
  uint32_t take(bool evict);
  /** `take`s a frame and enters it. */
  uint32_t assign(uint32_t number, Table& table, uint32_t page, uint32_t writer, bool evict);
  /** Puts pages into the frames claimed for them, but for those whose version before is there. */
  void store(const std::vector<Claim>& claims, const uint8_t* bytes);
  void release(uint32_t frame);
  /** Releases it, or has it released by who holds it. */
  void retire(uint32_t frame);
  void dropWhere(uint32_t table, bool all, uint32_t from, uint32_t to);
  uint8_t* content(uint32_t frame) const { return memory_ + static_cast<size_t>(frame) * kPageSize; }

  const uint32_t limit_;
  uint8_t* memory_ = nullptr;
  size_t length_ = 0;
  /** Fills frames that have no memory yet; invalid where that cannot be done. */
  Userfault userfault_;
  std::mutex mutex_;
  std::condition_variable ended_;
  std::vector<Frame> frames_;
  std::vector<uint32_t> free_;
  std::map<uint32_t, Table> tables_;
  uint32_t nextTable_ = 1;
  uint32_t hand_ = 0;
  bool dead_ = false;
};

}  // namespace tidemark
