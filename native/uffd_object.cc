#include "uffd_object.h"

#include <unistd.h>

#include <cerrno>

#include "errors.h"
#include "pagemap.h"
#include "registry.h"
#include "uffd_maps.h"

namespace tidemark::uffd {

namespace {
constexpr int kBusyRetries = 1000;

Registry<Object>& objects() {
  // Never destroyed: threads may still be at work when the process runs its static destructors.
  static Registry<Object>& instance = *new Registry<Object>();
  return instance;
}

int openDescriptor(bool device, bool userModeOnly) {
  const int flags = userModeOnly ? UFFD_USER_MODE_ONLY : 0;
  const int fd = device ? openDevice(flags) : openSyscall(flags);
  if (fd < 0) throw SystemError(-fd, device ? "open" : "userfaultfd", device ? "/dev/userfaultfd" : "");
  return fd;
}

/** Poisons what is not there and steps over what is. */
void poisonHoles(int fd, uint8_t* start, size_t length) {
  int patience = kBusyRetries;
  for (size_t at = 0; at < length;) {
    const Outcome outcome = poison(fd, start + at, length - at, UFFDIO_POISON_MODE_DONTWAKE);
    at += outcome.done;
    if (outcome.error == 0 || outcome.error == ESRCH) return;
    // A part was done: the next try finds out what stopped it.
    if (outcome.done > 0) continue;
    if (outcome.error != EAGAIN) {
      at += hostPageSize();
    } else {
      // An event is on its way to the reader, which still runs.
      if (patience-- == 0) return;
      usleep(1000);
    }
  }
}
}  // namespace

Object::Object(uint32_t id, int fd, const Options& options) : id_(id), options_(options), fd_(fd) {}

Object::~Object() { shut(); }

Opened Object::open(napi_env env, const Options& options) {
  const int fd = openDescriptor(options.device, options.userModeOnly);
  Opened opened{0, options.features, 0};
  const int error = api(fd, opened.features, opened.ioctls);
  if (error != 0) {
    ::close(fd);
    throw SystemError(error, "ioctl(UFFDIO_API)");
  }
  opened.id = objects().add([&](uint32_t id) { return std::make_shared<Object>(id, fd, options); });
  own(env, opened.id);
  return opened;
}

Opened Object::offered(bool device, bool userModeOnly) {
  const int fd = openDescriptor(device, userModeOnly);
  Opened opened{0, 0, 0};
  const int error = api(fd, opened.features, opened.ioctls);
  ::close(fd);
  if (error != 0) throw SystemError(error, "ioctl(UFFDIO_API)");
  return opened;
}

std::shared_ptr<Object> Object::find(uint32_t id) {
  std::shared_ptr<Object> object = objects().find(id);
  if (object == nullptr) throw closedError("userfaultfd", id);
  return object;
}

void Object::own(napi_env env, uint32_t id) {
  const std::shared_ptr<Object> object = find(id);
  object->owner_ = env;
  object->cleanup_ = Cleanup::add(env, [](uint32_t ended) { close(nullptr, ended); }, id);
}

void Object::close(napi_env env, uint32_t id) {
  const std::shared_ptr<Object> object = objects().remove(id);
  if (object == nullptr) return;
  // Only the owner's thread may look at its hooks.
  if (env != nullptr && env == object->owner_) {
    Cleanup::remove(env, object->readerCleanup_);
    Cleanup::remove(env, object->cleanup_);
  }
  object->shut();
}

void Object::shut() {
  // While events are read still: the kernel refuses with EAGAIN as long as one is unread.
  if (fd_ >= 0 && options_.poisonAtClose) poisonMissing();
  if (fd_ >= 0 && (options_.features & UFFD_FEATURE_EVENT_FORK) != 0 && !foreign_) endForks();
  std::unique_ptr<Reader> reader;
  {
    const std::lock_guard<std::mutex> guard(readerMutex_);
    reader = std::move(reader_);
  }
  std::vector<Event> left;
  if (reader != nullptr) {
    reader->stop();
    left = reader->take();
    reader.reset();
  }
  for (const Event& event : left) {
    if (event.child != 0) close(nullptr, event.child);
  }
  const std::unique_lock<std::shared_mutex> hold(mutex_);
  if (fd_ >= 0) ::close(fd_);
  fd_ = -1;
}

Range Object::enroll(const Span<uint8_t>& view, uint64_t mode) {
  if (foreign_) throw ArgumentError(ArgumentError::kType, "the descriptor of a fork has what its parent had registered, and nothing else");
  const size_t host = hostPageSize();
  if (view.length == 0 || reinterpret_cast<uintptr_t>(view.data) % host != 0 || view.length % host != 0) {
    throw CodedError("ERR_UNALIGNED", "memory to register must start at a page boundary of " + std::to_string(host) + " bytes and consist of whole pages");
  }
  const std::unique_lock<std::shared_mutex> hold(mutex_);
  if (fd_ < 0) throw closedError("userfaultfd", id_);
  Range range{ranges_->known(view.data, view.length), view.data, view.length, mode, host, 0};
  const std::optional<Range> before = ranges_->find(range.id);
  const int error = registerRange(fd_, view.data, view.length, mode, range.ioctls);
  if (error != 0) throw SystemError(error, "ioctl(UFFDIO_REGISTER)");
  // What a range has already it keeps; one that is given more gets exactly what it is given.
  if (before && (before->mode & mode) == mode) {
    range.mode = before->mode;
    range.ioctls |= before->ioctls;
  }
  // As after unregistering: nobody else wakes those that wait for what is no event any more.
  if (before && (before->mode & ~range.mode) != 0) wake(fd_, range.start, range.length);
  // Only hugetlbfs has no zero page.
  if ((range.ioctls & (1ull << _UFFDIO_ZEROPAGE)) == 0) {
    const std::vector<Mapping> mappings = mappingsOf(view.data, host);
    if (!mappings.empty()) range.pageSize = mappings.front().pageSize;
  }
  return ranges_->put(range);
}

void Object::withdraw(uint32_t id, const Span<uint8_t>& view) {
  const std::unique_lock<std::shared_mutex> hold(mutex_);
  const Range range = checkView(id, view);
  const int error = unregisterRange(fd_, range.start, range.length);
  if (error != 0) throw SystemError(error, "ioctl(UFFDIO_UNREGISTER)");
  ranges_->remove(id);
  // The kernel wakes only those that wait for missing pages: a writer of a protected page would wait for ever.
  wake(fd_, range.start, range.length);
}

Range Object::checkView(uint32_t id, const Span<uint8_t>& view) const {
  if (fd_ < 0) throw closedError("userfaultfd", id_);
  const std::optional<Range> range = ranges_->find(id);
  if (!range) throw closedError("registration", id);
  if (!foreign_ && (view.data != range->start || view.length < range->length)) {
    throw CodedError("ERR_MOVED", "the memory of registration " + std::to_string(id) + " is not where it was: its buffer was detached, transferred or shrunk");
  }
  return *range;
}

uint8_t* Object::check(const Place& place) const {
  const Range range = checkView(place.range, place.view);
  if (place.length == 0 || place.offset > range.length || place.length > range.length - place.offset) {
    throw ArgumentError(ArgumentError::kRange, "byteOffset and byteLength must lie within the registration and not be empty");
  }
  if (place.offset % range.pageSize != 0 || place.length % range.pageSize != 0) {
    throw ArgumentError(ArgumentError::kRange, "byteOffset and byteLength must be multiples of the page, " + std::to_string(range.pageSize) + " bytes");
  }
  return range.start + place.offset;
}

void Object::listen(napi_env env, napi_threadsafe_function function) {
  const std::lock_guard<std::mutex> guard(readerMutex_);
  if (fd_ < 0 || reader_ != nullptr) throw closedError("userfaultfd", id_);
  reader_ = std::make_unique<Reader>(fd_, ranges_, [this](int fd) { return adopt(fd); });
  reader_->notify(function);
  // Newer than the function's own hook, so it runs before it: no thread calls what is being taken down.
  readerCleanup_ = Cleanup::add(env, [](uint32_t ended) { close(nullptr, ended); }, id_);
}

void Object::keepAlive(napi_env env, bool on) {
  const std::lock_guard<std::mutex> guard(readerMutex_);
  if (reader_ != nullptr) reader_->keepAlive(env, on);
}

std::vector<Event> Object::take() {
  const std::lock_guard<std::mutex> guard(readerMutex_);
  return reader_ == nullptr ? std::vector<Event>() : reader_->take();
}

uint32_t Object::adopt(int fd) {
  if (!options_.keepForks) {
    ::close(fd);
    return 0;
  }
  return objects().add([&](uint32_t id) {
    auto child = std::make_shared<Object>(id, fd, options_);
    child->foreign_ = true;
    child->ranges_->copyFrom(*ranges_);
    return child;
  });
}

void Object::endForks() const {
  // The child that is being made has a copy of the descriptor already, so closing ours would not end it, and who forks would wait for ever for an
  // event that nobody reads. Without registrations no fork begins that has an event; one that has begun makes the kernel answer EAGAIN until it was read.
  for (const Range& range : ranges_->all()) {
    uint64_t ioctls = 0;
    // Before 6.16 the kernel would let us unregister what is another's now.
    if (registerRange(fd_, range.start, range.length, range.mode, ioctls) == 0) unregisterRange(fd_, range.start, range.length);
  }
  for (int patience = kBusyRetries; patience > 0 && uffd::writeProtect(fd_, nullptr, hostPageSize(), 0) == EAGAIN; patience--) usleep(1000);
}

void Object::poisonMissing() const {
  for (const Range& range : ranges_->all()) {
    if ((range.mode & UFFDIO_REGISTER_MODE_MISSING) == 0) continue;
    // Nobody can be asked here whether JavaScript still has the memory, so the kernel is: some userfaultfd has it for missing pages, and it is ours
    // if it may be registered again. Of another process there is only what was ours.
    std::vector<Mapping> mappings{{range.start, range.length, range.pageSize, true}};
    if (!foreign_) mappings = mappingsOf(range.start, range.length);
    for (const Mapping& mapping : mappings) {
      uint64_t ioctls = 0;
      if (!mapping.missing || (!foreign_ && registerRange(fd_, mapping.start, mapping.length, range.mode, ioctls) != 0)) continue;
      // Where a marker of write-protection stands, poison is refused.
      if ((range.mode & UFFDIO_REGISTER_MODE_WP) != 0) writeProtect(fd_, mapping.start, mapping.length, UFFDIO_WRITEPROTECT_MODE_DONTWAKE);
      poisonHoles(fd_, mapping.start, mapping.length);
    }
  }
}

}  // namespace tidemark::uffd
