#include "uffd_pump.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "errors.h"
#include "thread.h"

namespace tidemark::uffd {

namespace {
/** Faults of several threads come in one read. */
constexpr size_t kBatch = 32;
constexpr size_t kFirstCapacity = 512;
}  // namespace

Pump::Pump(int fd) : fd_(fd) {
  stop_ = eventfd(0, EFD_CLOEXEC);
  if (stop_ < 0) throw SystemError(errno, "eventfd");
  try {
    thread_ = startThread([this] { run(); });
  } catch (...) {
    close(stop_);
    throw;
  }
}

Pump::~Pump() {
  stop();
  close(stop_);
  for (const Buffer& buffer : {filling_, given_}) {
    if (buffer.data != nullptr) munmap(buffer.data, buffer.capacity * sizeof(uffd_msg));
  }
}

void Pump::stop() {
  const uint64_t one = 1;
  // An eventfd that nobody reads takes this the first time.
  if (thread_.joinable() && write(stop_, &one, sizeof one) == sizeof one) thread_.join();
}

Pump::Messages Pump::next() {
  std::unique_lock<std::mutex> lock(mutex_);
  ready_.wait(lock, [this] { return filling_.count > 0 || ended_; });
  std::swap(filling_, given_);
  filling_.count = 0;
  return {given_.data, given_.count};
}

void Pump::run() {
  pollfd watched[2] = {{fd_, POLLIN, 0}, {stop_, POLLIN, 0}};
  for (;;) {
    if (poll(watched, 2, -1) < 0) {
      if (errno == EINTR) continue;
      break;
    }
    if (watched[1].revents != 0 || !readSome()) break;
  }
  const std::lock_guard<std::mutex> guard(mutex_);
  ended_ = true;
  ready_.notify_one();
}

bool Pump::readSome() {
  uffd_msg messages[kBatch];
  const ssize_t length = read(fd_, messages, sizeof messages);
  // EAGAIN: the thread that faulted was woken by somebody else in between.
  if (length < 0) return errno == EAGAIN || errno == EINTR;
  push(messages, static_cast<size_t>(length) / sizeof messages[0]);
  return true;
}

void Pump::push(const uffd_msg* messages, size_t count) {
  std::unique_lock<std::mutex> lock(mutex_);
  while (filling_.count + count > filling_.capacity && !grow(filling_)) {
    // No memory: room comes when the others are taken.
    lock.unlock();
    usleep(1000);
    lock.lock();
  }
  memcpy(filling_.data + filling_.count, messages, count * sizeof messages[0]);
  filling_.count += count;
  ready_.notify_one();
}

bool Pump::grow(Buffer& buffer) {
  const size_t capacity = std::max(kFirstCapacity, 2 * buffer.capacity);
  void* data;
  if (buffer.data == nullptr) data = mmap(nullptr, capacity * sizeof(uffd_msg), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  else data = mremap(buffer.data, buffer.capacity * sizeof(uffd_msg), capacity * sizeof(uffd_msg), MREMAP_MAYMOVE);
  if (data == MAP_FAILED) return false;
  buffer.data = static_cast<uffd_msg*>(data);
  buffer.capacity = capacity;
  return true;
}

}  // namespace tidemark::uffd
