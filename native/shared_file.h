#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "pagemap.h"

namespace tidemark {

/**
 * A part of a file on tmpfs, mapped shared; memfds and what is in /dev/shm are such files, too. The descriptor is kept: what has
 * content, and how long the file is, no page table tells. Found by its memory, from any thread.
 */
class SharedFile {
 public:
  struct Part {
    uint64_t offset;
    /** 0: to the end of the file. */
    uint64_t length;
    /** Make the file where it is missing, and lengthen it where it is too short. */
    bool create;
    uint64_t maxLength;
  };
  /** Throws SystemError, ERR_UNTRACKABLE (a file that is none of these), ERR_UNALIGNED, ArgumentError (the file is too short). */
  static std::shared_ptr<SharedFile> map(const std::string& path, const Part& part);
  /** The one that all of this memory belongs to, or null. */
  static std::shared_ptr<SharedFile> find(const uint8_t* start, size_t length);
  SharedFile(const SharedFile&) = delete;
  SharedFile& operator=(const SharedFile&) = delete;
  /** Does not unmap. */
  ~SharedFile();

  uint8_t* memory() const { return memory_; }
  size_t length() const { return length_; }
  /** Before the memory is unmapped: nobody finds it by that any more. */
  void forget() const;
  /** How many bytes of its memory the file still has; to touch what lies behind is SIGBUS. */
  size_t available() const;
  /** The pages that the file has content for, in memory or in swap; the others are holes. */
  Runs populated(const uint8_t* start, size_t length) const;
  /** Makes a range a hole, which is zero and takes no memory; false where the kernel does not. No scan reports it. */
  bool punch(const uint8_t* start, size_t length) const;

 private:
  SharedFile(int fd, uint64_t offset) : fd_(fd), offset_(offset) {}
  /** Finds out the length, and lengthens the file if that was asked for. */
  void fit(const std::string& path, const Part& part);
  off_t offsetOf(const uint8_t* address) const { return static_cast<off_t>(offset_) + (address - memory_); }

  const int fd_;
  const uint64_t offset_;
  uint8_t* memory_ = nullptr;
  size_t length_ = 0;
};

}  // namespace tidemark
