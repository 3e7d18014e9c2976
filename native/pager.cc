#include "pager.h"

#include <sys/epoll.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <map>
#include <mutex>

#include "errors.h"
#include "thread.h"

namespace tidemark::pager {

namespace {
struct Pager {
  std::mutex mutex;
  std::map<uint64_t, std::shared_ptr<Residence>> residences;
  uint64_t nextKey = 1;
  int epoll = -1;
  bool runs = false;

  void serve() {
    std::array<epoll_event, 16> events;
    for (;;) {
      const int count = epoll_wait(epoll, events.data(), static_cast<int>(events.size()), -1);
      for (int k = 0; k < count; k++) {
        // Held: `remove` waits for what is being read.
        const std::lock_guard<std::mutex> guard(mutex);
        const auto found = residences.find(events[k].data.u64);
        if (found != residences.end()) found->second->readEvents();
      }
    }
  }

  void start() {
    if (epoll < 0) epoll = epoll_create1(EPOLL_CLOEXEC);
    if (epoll < 0) throw SystemError(errno, "epoll_create1");
    if (runs) return;
    startThread([this] { serve(); }).detach();
    runs = true;
  }
};

// Never destroyed: its thread runs until the process ends.
Pager& instance() {
  static Pager& pager = *new Pager();
  return pager;
}
}  // namespace

uint64_t add(const std::shared_ptr<Residence>& residence) {
  Pager& pager = instance();
  const std::lock_guard<std::mutex> guard(pager.mutex);
  pager.start();
  const uint64_t key = pager.nextKey++;
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.u64 = key;
  if (epoll_ctl(pager.epoll, EPOLL_CTL_ADD, residence->descriptor(), &event) != 0) throw SystemError(errno, "epoll_ctl");
  pager.residences.emplace(key, residence);
  return key;
}

void remove(uint64_t key) {
  Pager& pager = instance();
  const std::lock_guard<std::mutex> guard(pager.mutex);
  const auto found = pager.residences.find(key);
  if (found == pager.residences.end()) return;
  epoll_ctl(pager.epoll, EPOLL_CTL_DEL, found->second->descriptor(), nullptr);
  pager.residences.erase(found);
}

}  // namespace tidemark::pager
