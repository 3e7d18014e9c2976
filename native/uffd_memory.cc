#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>

#include "api.h"
#include "args.h"
#include "errors.h"
#include "mapping.h"
#include "pagemap.h"
#include "uffd_abi.h"

// What the tests of tidemark/userfaultfd do to memory that JavaScript cannot do: shared memory that is mapped twice, and the system calls that make
// the kernel's events. None of them takes memory away from under a buffer.

#ifndef MREMAP_DONTUNMAP
#define MREMAP_DONTUNMAP 4
#endif

namespace tidemark {

namespace {
constexpr size_t kHugePageSize = 2 << 20;

Napi::Value mapShared(Napi::Env env, int file, size_t length) {
  void* mapped = mmap(nullptr, length, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  if (mapped == MAP_FAILED) throw SystemError(errno, "mmap");
  return wrapMemory(env, static_cast<uint8_t*>(mapped), length, length);
}

Napi::Value uffdMapTwice(const Napi::CallbackInfo& info) {
  const Args args(info);
  const size_t length = args.integer(0, "byteLength", 1ull << 30);
  const bool hugePages = args.boolean(1, "hugePages");
  const size_t unit = hugePages ? kHugePageSize : hostPageSize();
  if (length == 0 || length % unit != 0) throw ArgumentError(ArgumentError::kRange, "byteLength must be whole pages");
  const int file = memfd_create("tidemark", MFD_CLOEXEC | (hugePages ? MFD_HUGETLB : 0));
  if (file < 0) throw SystemError(errno, "memfd_create");
  Napi::Array both = Napi::Array::New(info.Env());
  try {
    if (ftruncate(file, static_cast<off_t>(length)) != 0) throw SystemError(errno, "ftruncate");
    for (uint32_t k = 0; k < 2; k++) both.Set(k, mapShared(info.Env(), file, length));
  } catch (...) {
    close(file);
    throw;
  }
  close(file);
  return both;
}

/** The whole pages of a view: what is done to them is not done to their neighbours. */
Span<uint8_t> pagesOf(const Args& args, size_t index, const char* name) {
  const Span<uint8_t> view = args.bytes(index, name);
  if (view.length == 0 || reinterpret_cast<uintptr_t>(view.data) % hostPageSize() != 0 || view.length % hostPageSize() != 0) {
    throw ArgumentError(ArgumentError::kRange, std::string(name) + " must be whole pages");
  }
  return view;
}

Napi::Value uffdRemap(const Napi::CallbackInfo& info) {
  const Args args(info);
  const Span<uint8_t> from = pagesOf(args, 0, "from");
  const Span<uint8_t> to = pagesOf(args, 1, "to");
  if (from.length != to.length) throw ArgumentError(ArgumentError::kRange, "from and to must be of the same length");
  const int flags = MREMAP_MAYMOVE | MREMAP_FIXED | MREMAP_DONTUNMAP;
  if (mremap(from.data, from.length, from.length, flags, to.data) == MAP_FAILED) throw SystemError(errno, "mremap");
  return info.Env().Undefined();
}

Napi::Value uffdRenew(const Napi::CallbackInfo& info) {
  const Span<uint8_t> view = pagesOf(Args(info), 0, "view");
  const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE;
  if (mmap(view.data, view.length, PROT_READ | PROT_WRITE, flags, -1, 0) == MAP_FAILED) throw SystemError(errno, "mmap");
  return info.Env().Undefined();
}

Napi::Value uffdFork(const Napi::CallbackInfo& info) {
  const Span<uint8_t> view = Args(info).bytes(0, "view");
  if (view.length == 0) throw ArgumentError(ArgumentError::kRange, "view must not be empty");
  const pid_t pid = fork();
  if (pid < 0) throw SystemError(errno, "fork");
  // Nothing but this is safe where other threads are missing.
  if (pid == 0) _exit(*static_cast<volatile uint8_t*>(view.data));
  return Napi::Number::New(info.Env(), pid);
}

Napi::Value uffdReap(const Napi::CallbackInfo& info) {
  const auto pid = static_cast<pid_t>(Args(info).integer(0, "pid", INT32_MAX));
  int status = 0;
  const pid_t ended = waitpid(pid, &status, WNOHANG);
  if (ended < 0) throw SystemError(errno, "waitpid");
  if (ended == 0) return info.Env().Undefined();
  return Napi::Number::New(info.Env(), WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status));
}
}  // namespace

void defineUserfaultfdTests(Napi::Object exports) {
  define<uffdMapTwice>(exports, "uffdMapTwice");
  define<uffdRemap>(exports, "uffdRemap");
  define<uffdRenew>(exports, "uffdRenew");
  define<uffdFork>(exports, "uffdFork");
  define<uffdReap>(exports, "uffdReap");
}

}  // namespace tidemark
