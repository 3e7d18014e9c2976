#pragma once
// What the peers store epochs in: one file that is appended to. A record is a header, the numbers of its pages (unless they are consecutive)
// and zstd frames of up to 16 pages.
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>
#include <zstd.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "support.h"

constexpr size_t kFramePages = 16;
constexpr size_t kRecordPages = 4 * kFramePages;
constexpr int kLevel = 1;

/** Up to kRecordPages pages that become one record. */
struct Chunk {
  const uint8_t* pages;
  /** Null: they are consecutive from `first` on. */
  const uint32_t* numbers;
  /** Page k is not the k-th in `pages`, but the one that has its number. */
  bool scattered;
  uint32_t first;
  uint32_t count;
};

class EpochFile {
 public:
  EpochFile(const std::string& folder, size_t threads) : threads_(threads) {
    fd_ = open((folder + "/epochs").c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    check(fd_ >= 0, "the file for the epochs");
  }

  /** Compresses and writes on all threads, and returns when it is durable. @returns bytes stored */
  uint64_t append(const std::vector<Chunk>& chunks) {
    // Made here, and kept: a child that stores has buffers of its own.
    while (workers_.size() < threads_) workers_.emplace_back();
    std::atomic<size_t> next{0};
    std::atomic<uint64_t> at{end_};
    runParallel(threads_, threads_, [&](size_t number) {
      for (size_t k = next++; k < chunks.size(); k = next++) {
        const size_t length = encode(workers_[number], chunks[k]);
        writeAll(workers_[number].record.data(), length, at.fetch_add(length));
      }
    });
    check(fdatasync(fd_) == 0, "fdatasync");
    const uint64_t stored = at - end_;
    skip(stored);
    return stored;
  }

  /** Another process has appended an epoch. */
  void skip(uint64_t bytes) {
    end_ += bytes;
    epoch_++;
  }

  /** Puts together what the newest epoch stands for, from the last one that has every page on. */
  void restore(uint8_t* memory, size_t pages) const {
    const auto* file = static_cast<const uint8_t*>(mmap(nullptr, end_, PROT_READ, MAP_SHARED, fd_, 0));
    check(file != MAP_FAILED, "mmap of the file");
    std::vector<std::vector<uint64_t>> records(epoch_);
    std::vector<uint64_t> held(epoch_);
    for (uint64_t at = 0; at < end_;) {
      const Header header = headerAt(file, at);
      check(header.epoch < epoch_ && header.bytes > sizeof header, "a record");
      records[header.epoch].push_back(at);
      held[header.epoch] += header.count;
      at += header.bytes;
    }
    size_t epoch = epoch_ - 1;
    while (epoch > 0 && held[epoch] < pages) epoch--;
    check(held[epoch] == pages, "an epoch with every page");
    for (; epoch < epoch_; epoch++) {
      const std::vector<uint64_t>& own = records[epoch];
      runParallel(own.size(), threads_, [&](size_t k) { decode(file, own[k], memory, pages); });
    }
    munmap(const_cast<uint8_t*>(file), end_);
  }

 private:
  struct Header {
    uint32_t epoch, first, count, listed, bytes;
  };

  struct Worker {
    std::vector<uint8_t> record = std::vector<uint8_t>(
        sizeof(Header) + kRecordPages * sizeof(uint32_t) + kRecordPages / kFramePages * (sizeof(uint32_t) + ZSTD_compressBound(kFramePages * kPage)));
    std::vector<uint8_t> gathered = std::vector<uint8_t>(kFramePages * kPage);
    ZSTD_CCtx* zstd = ZSTD_createCCtx();
  };

  const size_t threads_;
  int fd_;
  uint64_t end_ = 0;
  uint32_t epoch_ = 0;
  std::vector<Worker> workers_;

  static Header headerAt(const uint8_t* file, uint64_t at) {
    Header header;
    memcpy(&header, file + at, sizeof header);
    return header;
  }

  size_t encode(Worker& worker, const Chunk& chunk) const {
    uint8_t* const record = worker.record.data();
    uint8_t* to = record + sizeof(Header);
    if (chunk.numbers != nullptr) {
      memcpy(to, chunk.numbers, chunk.count * sizeof(uint32_t));
      to += chunk.count * sizeof(uint32_t);
    }
    for (uint32_t k = 0; k < chunk.count; k += kFramePages) {
      const size_t pages = std::min<size_t>(kFramePages, chunk.count - k);
      const uint8_t* from = chunk.pages + k * kPage;
      if (chunk.scattered) {
        from = worker.gathered.data();
        for (size_t p = 0; p < pages; p++) memcpy(worker.gathered.data() + p * kPage, chunk.pages + chunk.numbers[k + p] * kPage, kPage);
      }
      const size_t room = record + worker.record.size() - to - sizeof(uint32_t);
      const size_t length = ZSTD_compressCCtx(worker.zstd, to + sizeof(uint32_t), room, from, pages * kPage, kLevel);
      check(!ZSTD_isError(length), "ZSTD_compressCCtx");
      const uint32_t stored = static_cast<uint32_t>(length);
      memcpy(to, &stored, sizeof stored);
      to += sizeof stored + length;
    }
    const Header header{epoch_, chunk.first, chunk.count, chunk.numbers != nullptr, static_cast<uint32_t>(to - record)};
    memcpy(record, &header, sizeof header);
    return header.bytes;
  }

  static void decode(const uint8_t* file, uint64_t at, uint8_t* memory, size_t pages) {
    const Header header = headerAt(file, at);
    const uint8_t* from = file + at + sizeof header;
    uint32_t numbers[kRecordPages];
    check(header.count <= kRecordPages, "a record");
    for (uint32_t k = 0; k < header.count; k++) numbers[k] = header.first + k;
    if (header.listed) {
      memcpy(numbers, from, header.count * sizeof(uint32_t));
      from += header.count * sizeof(uint32_t);
    }
    uint8_t frame[kFramePages * kPage];
    for (uint32_t k = 0; k < header.count; k += kFramePages) {
      const size_t count = std::min<size_t>(kFramePages, header.count - k);
      uint32_t length;
      memcpy(&length, from, sizeof length);
      from += sizeof length;
      check(ZSTD_decompress(frame, sizeof frame, from, length) == count * kPage, "ZSTD_decompress");
      from += length;
      for (size_t p = 0; p < count; p++) {
        check(numbers[k + p] < pages, "a page number");
        memcpy(memory + numbers[k + p] * kPage, frame + p * kPage, kPage);
      }
    }
  }

  void writeAll(const uint8_t* bytes, size_t length, uint64_t at) const {
    while (length > 0) {
      const ssize_t written = pwrite(fd_, bytes, length, static_cast<off_t>(at));
      check(written > 0, "pwrite");
      bytes += written;
      length -= written;
      at += written;
    }
  }
};
