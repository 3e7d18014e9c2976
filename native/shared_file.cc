#include "shared_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <map>
#include <mutex>

#include "errors.h"

namespace tidemark {

namespace {
struct Registry {
  std::mutex mutex;
  /** By the address where the memory starts. */
  std::map<const uint8_t*, std::shared_ptr<SharedFile>> files;
};

// Never destroyed: threads may still be at work when the process runs its static destructors.
Registry& registry() {
  static Registry& instance = *new Registry();
  return instance;
}

// linux/magic.h
constexpr uint64_t kTmpfs = 0x01021994;
constexpr uint64_t kHugetlbfs = 0x958458f6;

std::string nameOf(uint64_t fileSystem) {
  switch (fileSystem) {
    case 0xef53: return "ext4";
    case 0x58465342: return "xfs";
    case 0x9123683e: return "btrfs";
    case 0x794c7630: return "overlayfs";
    case 0x6969: return "nfs";
    case 0x858458f6: return "ramfs";
    case 0x9fa0: return "proc";
    case 0x62656572: return "sysfs";
  }
  char text[48];
  snprintf(text, sizeof text, "a file system of type 0x%llx", static_cast<unsigned long long>(fileSystem));
  return text;
}

void checkFileSystem(const std::string& path, uint64_t type) {
  if (type == kTmpfs) return;
  if (type == kHugetlbfs) throw CodedError("ERR_UNTRACKABLE", path + " is hugetlb memory: scanning a hole of it hangs the thread unkillably on kernels without e92d92bbafb2");
  throw CodedError("ERR_UNTRACKABLE", path + " is on " + nameOf(type) + ": only files that are memory are tracked, for a disk writes back, fills up and fails behind the mapping");
}

void checkFolder(const std::string& path) {
  const size_t slash = path.find_last_of('/');
  const std::string folder = slash == std::string::npos ? "." : path.substr(0, slash + 1);
  struct statfs found{};
  if (statfs(folder.c_str(), &found) != 0) throw SystemError(errno, "statfs", folder);
  checkFileSystem(path, static_cast<uint64_t>(found.f_type));
}

int openFile(const std::string& path, bool create) {
  for (;;) {
    const int there = open(path.c_str(), O_RDWR | O_CLOEXEC);
    if (there >= 0) return there;
    if (errno != ENOENT || !create) throw SystemError(errno, "open", path);
    // No file is made where it would be refused.
    checkFolder(path);
    const int made = open(path.c_str(), O_RDWR | O_CLOEXEC | O_CREAT | O_EXCL, 0600);
    if (made >= 0) return made;
    // Somebody else has just made it: then that one. A link that leads nowhere says so for ever.
    if (errno != EEXIST || access(path.c_str(), F_OK) != 0) throw SystemError(errno, "open", path);
  }
}

void checkKind(int fd, const std::string& path) {
  struct stat found{};
  if (fstat(fd, &found) != 0) throw SystemError(errno, "fstat", path);
  if (!S_ISREG(found.st_mode)) throw CodedError("ERR_UNTRACKABLE", path + " is not a file");
  struct statfs system{};
  if (fstatfs(fd, &system) != 0) throw SystemError(errno, "fstatfs", path);
  checkFileSystem(path, static_cast<uint64_t>(system.f_type));
}

uint64_t lengthOf(int fd) {
  struct stat found{};
  if (fstat(fd, &found) != 0) throw SystemError(errno, "fstat");
  return static_cast<uint64_t>(found.st_size);
}
}  // namespace

SharedFile::~SharedFile() { close(fd_); }

std::shared_ptr<SharedFile> SharedFile::map(const std::string& path, const Part& part) {
  if (part.offset % hostPageSize() != 0 || part.length % hostPageSize() != 0) {
    throw CodedError("ERR_UNALIGNED", "byteOffset and byteLength must be multiples of " + std::to_string(hostPageSize()));
  }
  const std::shared_ptr<SharedFile> file(new SharedFile(openFile(path, part.create), part.offset));
  checkKind(file->fd_, path);
  file->fit(path, part);
  void* mapped = mmap(nullptr, file->length_, PROT_READ | PROT_WRITE, MAP_SHARED, file->fd_, static_cast<off_t>(part.offset));
  if (mapped == MAP_FAILED) throw SystemError(errno, "mmap", path);
  file->memory_ = static_cast<uint8_t*>(mapped);
  const std::lock_guard<std::mutex> guard(registry().mutex);
  registry().files.emplace(file->memory_, file);
  return file;
}

void SharedFile::fit(const std::string& path, const Part& part) {
  const uint64_t size = lengthOf(fd_);
  const std::string has = path + " has " + std::to_string(size) + " bytes";
  if (part.length == 0 && size <= part.offset) throw ArgumentError(ArgumentError::kRange, has + ": nothing to map from byteOffset on");
  const uint64_t length = part.length == 0 ? size - part.offset : part.length;
  if (length % hostPageSize() != 0) throw CodedError("ERR_UNALIGNED", has + ", which does not end at a page");
  if (length > part.maxLength) throw ArgumentError(ArgumentError::kRange, has + "; a buffer of this Node.js can have " + std::to_string(part.maxLength));
  const uint64_t end = part.offset + length;
  if (end > size) {
    if (!part.create) throw ArgumentError(ArgumentError::kRange, has + ", not " + std::to_string(end) + "; `create` lengthens it");
    // Not ftruncate(2): if another process lengthens it to more at this moment, that would cut its end off.
    if (fallocate(fd_, 0, static_cast<off_t>(end) - 1, 1) != 0) throw SystemError(errno, "fallocate", path);
  }
  length_ = length;
}

std::shared_ptr<SharedFile> SharedFile::find(const uint8_t* start, size_t length) {
  const std::lock_guard<std::mutex> guard(registry().mutex);
  auto behind = registry().files.upper_bound(start);
  if (behind == registry().files.begin()) return nullptr;
  const std::shared_ptr<SharedFile>& file = std::prev(behind)->second;
  return start + length <= file->memory_ + file->length_ ? file : nullptr;
}

void SharedFile::forget() const {
  const std::lock_guard<std::mutex> guard(registry().mutex);
  registry().files.erase(memory_);
}

size_t SharedFile::available() const {
  const uint64_t size = lengthOf(fd_);
  return size <= offset_ ? 0 : static_cast<size_t>(std::min<uint64_t>(size - offset_, length_));
}

Runs SharedFile::populated(const uint8_t* start, size_t length) const {
  // For these files data is what is in the page cache and in swap, as the kernel keeps it: exact, and nothing is touched. (mincore(2)
  // takes what is in swap for a hole.) A page that fallocate(2) has reserved and nobody has touched is a hole.
  Runs runs;
  const off_t base = offsetOf(start);
  const off_t end = base + static_cast<off_t>(length);
  for (off_t at = base; at < end;) {
    const off_t data = lseek(fd_, at, SEEK_DATA);
    // ENXIO: no data from here on, or the file has become shorter.
    const off_t hole = data < 0 || data >= end ? data : lseek(fd_, data, SEEK_HOLE);
    if (hole < 0 && errno != ENXIO) throw SystemError(errno, "lseek");
    if (hole < 0 || data >= end) break;
    const auto first = static_cast<size_t>(data - base) / kPageSize;
    const auto behind = (static_cast<size_t>(std::min(hole, end) - base) + kPageSize - 1) / kPageSize;
    runs.push_back({static_cast<uint32_t>(first), static_cast<uint32_t>(behind - first)});
    at = hole;
  }
  return runs;
}

bool SharedFile::punch(const uint8_t* start, size_t length) const {
  return fallocate(fd_, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offsetOf(start), static_cast<off_t>(length)) == 0;
}

}  // namespace tidemark
