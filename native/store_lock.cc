#include "store_lock.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <map>
#include <mutex>
#include <utility>

#include "cleanup.h"
#include "errors.h"

namespace tidemark {

namespace {
/** Closes what it holds. */
class File {
 public:
  explicit File(int fd) : fd_(fd) {}
  File(const File&) = delete;
  File& operator=(const File&) = delete;
  ~File() {
    if (fd_ >= 0) close(fd_);
  }
  int get() const { return fd_; }
  int release() { return std::exchange(fd_, -1); }

 private:
  int fd_;
};

using Identity = std::pair<dev_t, ino_t>;

struct Lock {
  Identity folder;
  int fd;
  Cleanup* cleanup;
};

struct Registry {
  std::mutex mutex;
  uint32_t nextId = 1;
  std::map<uint32_t, Lock> locks;
  std::map<Identity, uint32_t> owners;
};

Registry& registry() {
  static Registry& instance = *new Registry();
  return instance;
}

int openFolder(const std::string& folder) {
  const int fd = open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) throw SystemError(errno, "open", folder);
  return fd;
}

void sync(int fd, int (*how)(int), const char* call, const std::string& path) {
  while (how(fd) != 0) {
    if (errno != EINTR) throw SystemError(errno, call, path);
  }
}
}  // namespace

uint32_t lockStore(napi_env env, const std::string& folder) {
  const File directory(openFolder(folder));
  struct stat status {};
  if (fstat(directory.get(), &status) != 0) throw SystemError(errno, "fstat", folder);
  const Identity identity(status.st_dev, status.st_ino);

  const std::lock_guard<std::mutex> guard(registry().mutex);
  if (registry().owners.count(identity) > 0) throw CodedError("ERR_LOCKED_HERE", "this process has locked '" + folder + "' already");
  const std::string path = folder + "/lock";
  File file(openat(directory.get(), "lock", O_RDWR | O_CREAT | O_CLOEXEC, 0600));
  if (file.get() < 0) throw SystemError(errno, "open", path);
  while (flock(file.get(), LOCK_EX | LOCK_NB) != 0) {
    if (errno == EWOULDBLOCK) throw CodedError("ERR_LOCKED_ELSEWHERE", "another process has locked '" + folder + "'");
    if (errno != EINTR) throw SystemError(errno, "flock", path);
  }
  const uint32_t id = registry().nextId++;
  // Registered now and not at load: so it runs after the hook of a database that is opened under the lock.
  Cleanup* cleanup = Cleanup::add(env, [](uint32_t ended) { unlockStore(nullptr, ended); }, id);
  registry().owners.emplace(identity, id);
  registry().locks.emplace(id, Lock{identity, file.release(), cleanup});
  return id;
}

void unlockStore(napi_env env, uint32_t id) {
  const std::lock_guard<std::mutex> guard(registry().mutex);
  const auto found = registry().locks.find(id);
  if (found == registry().locks.end()) return;
  const Lock lock = found->second;
  if (env != nullptr) Cleanup::remove(env, lock.cleanup);
  registry().locks.erase(found);
  registry().owners.erase(lock.folder);
  // By itself, for a child between fork and exec has a copy of the descriptor, which would keep the lock.
  flock(lock.fd, LOCK_UN);
  close(lock.fd);
}

uint32_t syncLogs(const std::string& folder) {
  const File directory(openFolder(folder));
  DIR* entries = opendir(folder.c_str());
  if (entries == nullptr) throw SystemError(errno, "opendir", folder);
  const auto closeEntries = [](DIR* open) { closedir(open); };
  const std::unique_ptr<DIR, decltype(closeEntries)> guard(entries, closeEntries);
  uint32_t count = 0;
  for (;;) {
    errno = 0;
    const dirent* entry = readdir(entries);
    if (entry == nullptr) {
      if (errno != 0) throw SystemError(errno, "readdir", folder);
      break;
    }
    const size_t length = strlen(entry->d_name);
    if (length <= 4 || strcmp(entry->d_name + length - 4, ".log") != 0) continue;
    const std::string path = folder + "/" + entry->d_name;
    const File file(openat(directory.get(), entry->d_name, O_RDONLY | O_CLOEXEC));
    if (file.get() < 0) {
      // LevelDB deletes a log when all of it is in a table, which it syncs before.
      if (errno == ENOENT) continue;
      throw SystemError(errno, "open", path);
    }
    sync(file.get(), fdatasync, "fdatasync", path);
    count++;
  }
  sync(directory.get(), fsync, "fsync", folder);
  return count;
}

}  // namespace tidemark
