#include "probe.h"

#include <sys/utsname.h>
#include <unistd.h>

#include <cstring>
#include <functional>

#include "errors.h"
#include "memory.h"
#include "pagemap.h"
#include "userfault.h"

namespace tidemark {

namespace {
constexpr size_t kHugePageSize = 2 << 20;
constexpr size_t kTestPages = 8;
enum class Outcome { kNo, kYes, kUntried };

/** Memory to try things on, tracked by a descriptor of its own. */
class Range {
 public:
  explicit Range(size_t length, bool hugePages = false) : Range(length, mapMemory(length, hugePages)) {}
  Range(size_t length, uint8_t* memory) : length(length), memory(memory) {}
  Range(const Range&) = delete;
  Range& operator=(const Range&) = delete;
  ~Range() { munmap(memory, length); }

  void track() {
    userfault = Userfault::forTracking();
    userfault.registerForWrites(memory, length);
    userfault.protect(memory, length, true);
  }
  uint8_t* hostPage(size_t number) const { return memory + number * hostPageSize(); }
  /** Exactly the host pages [first, first + count) are reported as written (none for 0), and they are armed again. */
  bool reports(size_t first, size_t count) const {
    const Runs runs = pagemap::written(memory, length, true);
    if (count == 0) return runs.empty();
    const size_t unit = hostPageSize() / kPageSize;
    return runs.size() == 1 && runs[0].first == first * unit && runs[0].count == count * unit;
  }

  const size_t length;
  uint8_t* const memory;
  Userfault userfault;
};

void write(uint8_t* at) { *static_cast<volatile uint8_t*>(at) = 1; }

bool testWrites() {
  Range range(kTestPages * hostPageSize());
  write(range.hostPage(1));
  range.track();
  if (!range.reports(0, 0)) return false;
  // A present page and a hole.
  write(range.hostPage(1));
  write(range.hostPage(2));
  return range.reports(1, 2) && range.reports(0, 0);
}

bool testShared() {
  const size_t length = kTestPages * hostPageSize();
  const int fd = memfd_create("tidemark-probe", MFD_CLOEXEC);
  const bool sized = fd >= 0 && ftruncate(fd, static_cast<off_t>(length)) == 0;
  void* mapped = sized ? mmap(nullptr, length, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) : MAP_FAILED;
  if (fd >= 0) close(fd);
  if (mapped == MAP_FAILED) return false;
  Range range(length, static_cast<uint8_t*>(mapped));
  write(range.hostPage(1));
  range.track();
  if (!range.reports(0, 0)) return false;
  // A present page and a hole; then one that no page table knows of any more.
  write(range.hostPage(1));
  write(range.hostPage(2));
  if (!range.reports(1, 2)) return false;
  write(range.hostPage(3));
  if (madvise(range.hostPage(3), hostPageSize(), MADV_DONTNEED) != 0) return false;
  return range.reports(3, 1) && range.reports(0, 0);
}

bool testDropped() {
  Range range(kTestPages * hostPageSize());
  memset(range.memory, 1, range.length);
  range.track();
  if (!range.reports(0, 0) || madvise(range.hostPage(3), hostPageSize(), MADV_DONTNEED) != 0) return false;
  return range.reports(3, 1);
}

Outcome testDroppedHuge() {
  Range range(2 * kHugePageSize, true);
  const Runs huge = pagemap::huge(range.memory, range.length);
  const size_t pages = kHugePageSize / kPageSize;
  if (huge.size() != 1 || huge[0].first != 0 || huge[0].count != 2 * pages) return Outcome::kUntried;
  range.track();
  if (!pagemap::written(range.memory, range.length, true).empty()) return Outcome::kNo;
  if (madvise(range.memory, kHugePageSize, MADV_DONTNEED) != 0) return Outcome::kUntried;
  const Runs runs = pagemap::written(range.memory, range.length, true);
  return runs.size() == 1 && runs[0].first == 0 && runs[0].count == pages ? Outcome::kYes : Outcome::kNo;
}

bool testFill() {
  Range range(kTestPages * hostPageSize());
  Range source(hostPageSize());
  memset(source.memory, 7, source.length);
  range.track();
  int error = 0;
  if (range.userfault.copy(range.hostPage(2), source.memory, hostPageSize(), true, error) != hostPageSize()) return false;
  if (!range.reports(0, 0) || memcmp(range.hostPage(2), source.memory, hostPageSize()) != 0) return false;
  write(range.hostPage(2));
  return range.reports(2, 1);
}

bool testGiveBack() {
  Range range(kTestPages * hostPageSize());
  write(range.hostPage(1));
  range.track();
  if (!range.reports(0, 0)) return false;
  // A present page and a hole.
  range.userfault.protect(range.hostPage(1), 2 * hostPageSize(), false);
  return range.reports(1, 2) && range.reports(0, 0);
}

bool testScan() {
  Range range(kTestPages * hostPageSize());
  write(range.hostPage(1));
  const Runs runs = pagemap::present(range.memory, range.length, true);
  return runs.size() == 1;
}

/** A test that cannot be done has not been passed. */
template <typename Result>
Result attempt(Result otherwise, Result (*test)()) {
  try {
    return test();
  } catch (const std::exception&) {
    return otherwise;
  }
}

const char* nameOf(Way way) {
  switch (way) {
    case Way::kDevice: return "device";
    case Way::kSyscall: return "syscall";
    case Way::kSyscallUserMode: return "syscall-user-mode";
    default: return "";
  }
}

std::string nameOf(int error) { return error == 0 ? "" : errorName(error); }

uint64_t features() {
  return Userfault::supportedFeatures();
}
}  // namespace

bool reportsDroppedHugePages() {
  static const bool result = attempt(Outcome::kUntried, testDroppedHuge) == Outcome::kYes;
  return result;
}

Napi::Object probe(Napi::Env env) {
  utsname system{};
  uname(&system);
  Attempts attempts;
  { const Userfault throwAway = Userfault::obtain(attempts); }
  const Outcome droppedHuge = attempt(Outcome::kUntried, testDroppedHuge);

  Napi::Object result = Napi::Object::New(env);
  result.Set("kernel", system.release);
  result.Set("hostPageSize", static_cast<double>(hostPageSize()));
  result.Set("descriptor", nameOf(attempts.way));
  result.Set("deviceError", nameOf(attempts.deviceError));
  result.Set("syscallError", nameOf(attempts.syscallError));
  result.Set("userModeError", nameOf(attempts.userModeError));
  result.Set("features", Napi::BigInt::New(env, attempt<uint64_t>(0, features)));
  result.Set("kernelFaults", attempts.way == Way::kDevice || attempts.way == Way::kSyscall);
  result.Set("pagemapScan", attempt(false, testScan));
  result.Set("tracksWrites", attempt(false, testWrites));
  result.Set("reportsDropped", attempt(false, testDropped));
  result.Set("reportsDroppedHuge", droppedHuge == Outcome::kUntried ? env.Null() : static_cast<Napi::Value>(Napi::Boolean::New(env, droppedHuge == Outcome::kYes)));
  result.Set("fillsArmed", attempt(false, testFill));
  result.Set("givesBack", attempt(false, testGiveBack));
  result.Set("tracksShared", attempt(false, testShared));
  return result;
}

}  // namespace tidemark
