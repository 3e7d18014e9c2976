#pragma once
// Peers that do not know what was written: they take everything, or look for it.
#define XXH_INLINE_ALL
#include <common/xxhash.h>

#include <cstring>
#include <vector>

#include "peer.h"

/** Copies the whole memory, and compresses the copy while the program goes on. */
class WholeCopy : public Peer {
 public:
  using Peer::Peer;

 protected:
  uint8_t* const copy_ = map(memory_.bytes());

  void copyAll() {
    share(memory_.pages, [&](size_t, size_t first, size_t end) { memcpy(copy_ + first * kPage, memory_.start + first * kPage, (end - first) * kPage); });
  }

  void capture(bool) override {
    copyAll();
    addAll(copy_);
  }
};

/**
 * Compares every page with a copy of what it was. The copy needs no staging beside it: brought up to date it is what has to be stored, and stays
 * so until the next epoch.
 */
class Comparison : public WholeCopy {
 public:
  using WholeCopy::WholeCopy;

 protected:
  void capture(bool first) override {
    if (first) return WholeCopy::capture(first);
    share(memory_.pages, [&](size_t thread, size_t page, size_t end) {
      found_[thread].clear();
      for (; page < end; page++) {
        const uint8_t* now = memory_.start + page * kPage;
        uint8_t* before = copy_ + page * kPage;
        if (memcmp(now, before, kPage) == 0) continue;
        memcpy(before, now, kPage);
        found_[thread].push_back(static_cast<uint32_t>(page));
      }
    });
    for (const auto& numbers : found_) addListed(copy_, numbers, true);
  }

 private:
  std::vector<std::vector<uint32_t>> found_ = std::vector<std::vector<uint32_t>>(threads_);
};

/** Keeps a hash of every page. What differs is copied while it is still in the cache: the thread's pages begin in the staging where its part of the memory does. */
class Hashes : public Peer {
 public:
  using Peer::Peer;

 protected:
  void capture(bool first) override {
    share(memory_.pages, [&](size_t thread, size_t page, size_t end) {
      found_[thread].clear();
      staged_[thread] = staging_ + page * kPage;
      uint8_t* to = staged_[thread];
      for (; page < end; page++) {
        const uint8_t* now = memory_.start + page * kPage;
        const uint64_t hash = XXH64(now, kPage, 0);
        if (hash == hashes_[page] && !first) continue;
        hashes_[page] = hash;
        if (first) continue;
        memcpy(to, now, kPage);
        to += kPage;
        found_[thread].push_back(static_cast<uint32_t>(page));
      }
    });
    // No staging for everything: the first epoch is stored from where it is.
    held_ = first;
    if (first) return addAll(memory_.start);
    for (size_t thread = 0; thread < threads_; thread++) addListed(staged_[thread], found_[thread], false);
  }

 private:
  uint64_t* const hashes_ = reinterpret_cast<uint64_t*>(map(memory_.pages * sizeof(uint64_t)));
  uint8_t* const staging_ = map(memory_.bytes());
  std::vector<std::vector<uint32_t>> found_ = std::vector<std::vector<uint32_t>>(threads_);
  std::vector<uint8_t*> staged_ = std::vector<uint8_t*>(threads_);
};
