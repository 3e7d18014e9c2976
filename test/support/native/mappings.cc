// For the tests: does to the memory of a view what a program may do behind the library's back. Node-API is declared by hand, so that no headers are needed.
#include <linux/userfaultfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>

extern "C" {
typedef struct napi_env__* napi_env;
typedef struct napi_value__* napi_value;
typedef struct napi_callback_info__* napi_callback_info;
typedef napi_value (*napi_callback)(napi_env, napi_callback_info);
int napi_get_cb_info(napi_env, napi_callback_info, size_t*, napi_value*, napi_value*, void**);
int napi_get_typedarray_info(napi_env, napi_value, int*, size_t*, void**, napi_value*, size_t*);
int napi_get_value_string_utf8(napi_env, napi_value, char*, size_t, size_t*);
int napi_get_value_int32(napi_env, napi_value, int32_t*);
int napi_create_int32(napi_env, int32_t, napi_value*);
int napi_create_function(napi_env, const char*, size_t, napi_callback, void*, napi_value*);
}

namespace {
int failed(bool yes) { return yes ? errno : 0; }

int map(void* start, size_t length, int protection, int flags) {
  return failed(mmap(start, length, protection, flags | MAP_FIXED | MAP_ANONYMOUS, -1, 0) == MAP_FAILED);
}

int move(void* from, void* to, size_t length) {
  return failed(mremap(from, length, length, MREMAP_MAYMOVE | MREMAP_FIXED, to) == MAP_FAILED);
}

int moveAway(void* start, size_t length, bool andBack) {
  void* const elsewhere = mmap(nullptr, length, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (elsewhere == MAP_FAILED) return errno;
  const int error = move(start, elsewhere, length);
  return error != 0 || !andBack ? error : move(elsewhere, start, length);
}

int unregister(int fd, void* start, size_t length) {
  uffdio_range range{};
  range.start = reinterpret_cast<uintptr_t>(start);
  range.len = length;
  return failed(ioctl(fd, UFFDIO_UNREGISTER, &range) != 0);
}

int change(const char* how, void* start, size_t length, int fd) {
  const auto is = [how](const char* what) { return strcmp(how, what) == 0; };
  if (is("unmap")) return failed(munmap(start, length) != 0);
  if (is("replace")) return map(start, length, PROT_READ | PROT_WRITE, MAP_PRIVATE);
  if (is("replace-shared")) return map(start, length, PROT_READ | PROT_WRITE, MAP_SHARED);
  if (is("replace-inaccessible")) return map(start, length, PROT_NONE, MAP_PRIVATE);
  if (is("move-away")) return moveAway(start, length, false);
  if (is("move-away-and-back")) return moveAway(start, length, true);
  if (is("inaccessible")) return failed(mprotect(start, length, PROT_NONE) != 0);
  if (is("read-only")) return failed(mprotect(start, length, PROT_READ) != 0);
  if (is("accessible")) return failed(mprotect(start, length, PROT_READ | PROT_WRITE) != 0);
  if (is("not-for-children")) return failed(madvise(start, length, MADV_DONTFORK) != 0);
  if (is("drop")) return failed(madvise(start, length, MADV_DONTNEED) != 0);
  if (is("unregister")) return unregister(fd, start, length);
  return EINVAL;
}

/** change(how, view, fd): the error number, or 0. */
napi_value changeVerb(napi_env env, napi_callback_info info) {
  size_t count = 3;
  napi_value arguments[3];
  char how[64] = {};
  int32_t fd = -1;
  void* start = nullptr;
  size_t length = 0;
  napi_get_cb_info(env, info, &count, arguments, nullptr, nullptr);
  napi_get_value_string_utf8(env, arguments[0], how, sizeof how, nullptr);
  const bool isView = napi_get_typedarray_info(env, arguments[1], nullptr, &length, &start, nullptr, nullptr) == 0;
  napi_get_value_int32(env, arguments[2], &fd);
  napi_value result;
  napi_create_int32(env, isView ? change(how, start, length, fd) : EINVAL, &result);
  return result;
}
}  // namespace

extern "C" __attribute__((visibility("default"))) napi_value napi_register_module_v1(napi_env env, napi_value) {
  napi_value function;
  napi_create_function(env, "change", 6, changeVerb, nullptr, &function);
  return function;
}
