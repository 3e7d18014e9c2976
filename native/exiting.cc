#include "exiting.h"

#include <signal.h>
#include <unistd.h>

#include <atomic>

namespace tidemark::exiting {

namespace {
constexpr int kNot = -1;
std::atomic<int> exitCode{kNot};
struct sigaction before;

void onSigbus(int signal, siginfo_t* info, void* context) {
  // What a poisoned page says (memory that is broken says it, too).
  if (info->si_code == BUS_MCEERR_AR) _exit(exitCode.load());
  if ((before.sa_flags & SA_SIGINFO) != 0 && before.sa_sigaction != nullptr) {
    before.sa_sigaction(signal, info, context);
    return;
  }
  // Comes again, and to whom it would have.
  sigaction(SIGBUS, &before, nullptr);
}
}  // namespace

void begin(int code) { exitCode.store(code); }

void prepare() {
  static std::atomic<bool> isPrepared{false};
  if (exitCode.load() == kNot || isPrepared.exchange(true)) return;
  struct sigaction action {};
  action.sa_sigaction = onSigbus;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK;
  sigemptyset(&action.sa_mask);
  sigaction(SIGBUS, &action, &before);
}

}  // namespace tidemark::exiting
