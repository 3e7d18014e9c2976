#include "thread.h"

#include <pthread.h>
#include <signal.h>

#include <system_error>
#include <utility>

#include "failures.h"

namespace tidemark {

std::thread startThread(std::function<void()> run) {
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  std::thread thread;
  int error = 0;
  try {
    thread = std::thread(std::move(run));
  } catch (const std::system_error& failure) {
    error = failure.code().value();
  }
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  if (error != 0) throw SystemError(error, "pthread_create");
  return thread;
}

}  // namespace tidemark
