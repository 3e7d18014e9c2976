#include "uffd_reader.h"

#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cerrno>
#include <system_error>

#include "errors.h"
#include "pagemap.h"

namespace tidemark::uffd {

namespace {
/** Faults of several threads come in one read. */
constexpr size_t kBatch = 32;
}  // namespace

Reader::Reader(int fd, std::shared_ptr<Ranges> ranges, Adopt adopt) : fd_(fd), ranges_(std::move(ranges)), adopt_(std::move(adopt)) {
  stop_ = eventfd(0, EFD_CLOEXEC);
  if (stop_ < 0) throw SystemError(errno, "eventfd");
  // Signals belong to Node's threads.
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  int error = 0;
  try {
    thread_ = std::thread([this] { run(); });
  } catch (const std::system_error& failure) {
    error = failure.code().value();
  }
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  if (error == 0) return;
  close(stop_);
  throw SystemError(error, "pthread_create");
}

Reader::~Reader() {
  stop();
  close(stop_);
  if (function_ != nullptr) napi_release_threadsafe_function(function_, napi_tsfn_release);
}

void Reader::stop() {
  const uint64_t one = 1;
  // An eventfd that nobody reads takes this the first time.
  if (thread_.joinable() && write(stop_, &one, sizeof one) == sizeof one) thread_.join();
}

void Reader::notify(napi_threadsafe_function function) {
  const std::lock_guard<std::mutex> guard(mutex_);
  function_ = function;
  if (!queue_.empty()) announce();
}

void Reader::keepAlive(napi_env env, bool on) {
  const std::lock_guard<std::mutex> guard(mutex_);
  if (function_ == nullptr) return;
  if (on) napi_ref_threadsafe_function(env, function_);
  else napi_unref_threadsafe_function(env, function_);
}

std::vector<Event> Reader::take() {
  const std::lock_guard<std::mutex> guard(mutex_);
  announced_ = false;
  return std::exchange(queue_, {});
}

void Reader::run() {
  pollfd watched[2] = {{fd_, POLLIN, 0}, {stop_, POLLIN, 0}};
  for (;;) {
    if (poll(watched, 2, -1) < 0) {
      if (errno == EINTR) continue;
      return;
    }
    if (watched[1].revents != 0 || !readSome()) return;
  }
}

bool Reader::readSome() {
  uffd_msg messages[kBatch];
  const ssize_t length = read(fd_, messages, sizeof messages);
  // EAGAIN: the thread that faulted was woken by somebody else in between.
  if (length < 0) return errno == EAGAIN || errno == EINTR;
  std::vector<Event> events;
  for (size_t k = 0; k < static_cast<size_t>(length) / sizeof messages[0]; k++) translate(messages[k], events);
  push(std::move(events));
  return true;
}

void Reader::translate(const uffd_msg& message, std::vector<Event>& events) const {
  Event event{message.event};
  const auto spread = [&](uint64_t start, uint64_t end) {
    for (const Piece& piece : ranges_->pieces(start, end)) {
      event.place = piece;
      events.push_back(event);
    }
  };
  switch (message.event) {
    case UFFD_EVENT_PAGEFAULT: {
      const uint64_t address = message.arg.pagefault.address;
      event.flags = message.arg.pagefault.flags;
      event.thread = message.arg.pagefault.feat.ptid;
      Piece place = ranges_->pieces(address, address + 1).front();
      event.exactOffset = place.offset;
      place.offset -= place.offset % place.pageSize;
      place.length = place.range == 0 ? 0 : place.pageSize;
      event.place = place;
      events.push_back(event);
      return;
    }
    case UFFD_EVENT_FORK:
      event.child = adopt_(static_cast<int>(message.arg.fork.ufd));
      events.push_back(event);
      return;
    case UFFD_EVENT_REMAP: {
      const uint64_t from = message.arg.remap.from;
      const uint64_t to = message.arg.remap.to;
      event.to = ranges_->pieces(to, to + message.arg.remap.len).front();
      return spread(from, from + message.arg.remap.len);
    }
    case UFFD_EVENT_REMOVE:
    case UFFD_EVENT_UNMAP:
      return spread(message.arg.remove.start, message.arg.remove.end);
    default:
      // Of a newer kernel; it comes only with a feature that nobody could ask for here.
      return;
  }
}

void Reader::push(std::vector<Event> events) {
  const std::lock_guard<std::mutex> guard(mutex_);
  queue_.insert(queue_.end(), events.begin(), events.end());
  if (!queue_.empty()) announce();
}

void Reader::announce() {
  if (function_ == nullptr || announced_) return;
  // One call for all that is queued when it runs.
  announced_ = napi_call_threadsafe_function(function_, nullptr, napi_tsfn_nonblocking) == napi_ok;
}

}  // namespace tidemark::uffd
