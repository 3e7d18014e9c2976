#include "uffd_reader.h"

#include <utility>

#include "thread.h"

namespace tidemark::uffd {

Reader::Reader(int fd, std::shared_ptr<Ranges> ranges, Adopt adopt)
    : ranges_(std::move(ranges)), adopt_(std::move(adopt)), pump_(fd), thread_(startThread([this] { run(); })) {}

Reader::~Reader() {
  stop();
  if (function_ != nullptr) napi_release_threadsafe_function(function_, napi_tsfn_release);
}

void Reader::stop() {
  pump_.stop();
  if (thread_.joinable()) thread_.join();
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
  for (;;) {
    const Pump::Messages messages = pump_.next();
    if (messages.count == 0) return;
    std::vector<Event> events;
    for (size_t k = 0; k < messages.count; k++) translate(messages.data[k], events);
    push(std::move(events));
  }
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
