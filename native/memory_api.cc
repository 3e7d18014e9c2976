#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>

#include "api.h"
#include "args.h"
#include "errors.h"
#include "mapping.h"
#include "memory.h"
#include "pagemap.h"
#include "region.h"
#include "uffd_abi.h"

// Verbs that make memory and tell what it is made of.

namespace tidemark {

namespace {
Napi::Value allocate(const Napi::CallbackInfo& info) {
  const Args args(info);
  const uint64_t byteLength = args.integer(0, "byteLength", 1ull << 46);
  const bool hugePages = args.boolean(1, "hugePages");
  if (byteLength == 0) throw ArgumentError(ArgumentError::kRange, "byteLength must not be 0");
  if (byteLength > maxBufferLength(info.Env())) throw ArgumentError(ArgumentError::kRange, "byteLength must be at most what a buffer of this Node.js can have");
  const size_t unit = hugePages ? 2 << 20 : hostPageSize();
  const size_t mapped = (byteLength + unit - 1) / unit * unit;
  return wrapMemory(info.Env(), mapMemory(mapped, hugePages), mapped, byteLength);
}

Napi::Value mapFile(const Napi::CallbackInfo& info) {
  const Args args(info);
  const std::string path = args.path(0, "path");
  const uint64_t byteOffset = args.integer(1, "byteOffset", 1ull << 46);
  const uint64_t byteLength = args.integer(2, "byteLength", 1ull << 46);
  const bool create = args.boolean(3, "create");
  return wrapFile(info.Env(), SharedFile::map(path, {byteOffset, byteLength, create, maxBufferLength(info.Env())}));
}

Napi::Value mappedBytes(const Napi::CallbackInfo& info) {
  const Args args(info);
  const Span<uint8_t> view = args.bytes(0, "view");
  const std::shared_ptr<SharedFile> file = SharedFile::find(view.data, view.length);
  return Napi::Number::New(info.Env(), static_cast<double>(file == nullptr ? view.length : file->available()));
}

Napi::Value regionHuge(const Napi::CallbackInfo& info) {
  const Args args(info);
  const uint32_t id = args.id(0);
  const Span<uint8_t> view = args.bytes(1, "view");
  const Runs runs = Region::find(id)->withMemory(view.data, view.length, {}, [&] { return pagemap::huge(view.data, view.length); });
  uint64_t bytes = 0;
  for (const Run& run : runs) bytes += run.count * kPageSize;
  return Napi::Number::New(info.Env(), static_cast<double>(bytes));
}

/** A child writes to the memory, and ends. */
void writeInChild(uint8_t* memory, size_t length) {
  const pid_t child = fork();
  if (child < 0) throw SystemError(errno, "fork");
  if (child == 0) {
    for (size_t at = 0; at < length; at += hostPageSize()) *static_cast<volatile uint8_t*>(memory + at) = 77;
    _exit(0);
  }
  while (waitpid(child, nullptr, 0) < 0 && errno == EINTR) {
  }
}

Napi::Value memoryChange(const Napi::CallbackInfo& info) {
  enum How { kDrop, kRemove, kProtect, kFork, kCollapse };
  const Args args(info);
  const Span<uint8_t> view = args.bytes(0, "view");
  const auto how = static_cast<How>(args.integer(1, "how", kCollapse));
  if (view.length == 0) throw ArgumentError(ArgumentError::kRange, "view must not be empty");
  const auto check = [](int result, const char* call) {
    if (result != 0) throw SystemError(errno, call);
  };
  switch (how) {
    case kDrop: check(madvise(view.data, view.length, MADV_DONTNEED), "madvise(MADV_DONTNEED)"); break;
    case kRemove: check(madvise(view.data, view.length, MADV_REMOVE), "madvise(MADV_REMOVE)"); break;
    case kProtect:
      check(mprotect(view.data, view.length, PROT_READ), "mprotect");
      check(mprotect(view.data, view.length, PROT_READ | PROT_WRITE), "mprotect");
      break;
    case kFork: writeInChild(view.data, view.length); break;
    case kCollapse: check(madvise(view.data, view.length, MADV_COLLAPSE), "madvise(MADV_COLLAPSE)"); break;
  }
  return info.Env().Undefined();
}
}  // namespace

void defineMemory(Napi::Object exports) {
  define<allocate>(exports, "allocate");
  define<mapFile>(exports, "mapFile");
  define<mappedBytes>(exports, "mappedBytes");
  define<regionHuge>(exports, "regionHuge");
  define<memoryChange>(exports, "memoryChange");
}

}  // namespace tidemark
