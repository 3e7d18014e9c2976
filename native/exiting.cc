#include "exiting.h"

#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <cstddef>
#include <cstdint>

namespace tidemark::exiting {

namespace {
constexpr int kNot = -1;
std::atomic<int> exitCode{kNot};
struct sigaction before;

/** More regions that are being filled than this when the process ends are not known of. */
constexpr size_t kMost = 1024;
struct Range {
  std::atomic<uintptr_t> start{0};
  std::atomic<uintptr_t> end{0};
};
Range ranges[kMost];
std::atomic<size_t> count{0};

/** In a handler of signals: nothing but these. */
bool isKnown(const void* address) {
  const auto at = reinterpret_cast<uintptr_t>(address);
  for (size_t k = 0; k < count.load() && k < kMost; k++) {
    if (at >= ranges[k].start.load() && at < ranges[k].end.load()) return true;
  }
  return false;
}

void onSigbus(int signal, siginfo_t* info, void* context) {
  if (isKnown(info->si_addr)) _exit(exitCode.load());
  if ((before.sa_flags & SA_SIGINFO) != 0 && before.sa_sigaction != nullptr) {
    before.sa_sigaction(signal, info, context);
    return;
  }
  // Comes again, and to whom it would have.
  sigaction(SIGBUS, &before, nullptr);
}
}  // namespace

void begin(int code) { exitCode.store(code); }

void prepare(const uint8_t* start, size_t length) {
  if (exitCode.load() == kNot) return;
  const size_t number = count.fetch_add(1);
  if (number >= kMost) return;
  ranges[number].start = reinterpret_cast<uintptr_t>(start);
  ranges[number].end = reinterpret_cast<uintptr_t>(start) + length;
  if (number > 0) return;
  struct sigaction action {};
  action.sa_sigaction = onSigbus;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK;
  sigemptyset(&action.sa_mask);
  sigaction(SIGBUS, &action, &before);
}

}  // namespace tidemark::exiting
