#include "pool.h"

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>

#include "failures.h"
#include "thread.h"

namespace tidemark {

namespace {
constexpr size_t kMaxHelpers = 63;

struct Job {
  Job(size_t tasks, const std::function<void(size_t)>& task) : tasks(tasks), task(task) {}
  const size_t tasks;
  /** Lives on the caller's stack: to be called only with a task number that was really drawn. */
  const std::function<void(size_t)>& task;
  std::atomic<size_t> next{0};
  std::atomic<size_t> done{0};
  std::mutex mutex;
  std::condition_variable finished;

  void work() {
    for (size_t number = next++; number < tasks; number = next++) {
      task(number);
      if (++done == tasks) {
        const std::lock_guard<std::mutex> guard(mutex);
        finished.notify_all();
      }
    }
  }
};

struct Pool {
  std::mutex mutex;
  std::condition_variable wake;
  /** One entry for each helper that is asked for. */
  std::deque<std::shared_ptr<Job>> requests;
  size_t helpers = 0;

  void serve() {
    for (;;) {
      std::shared_ptr<Job> job;
      {
        std::unique_lock<std::mutex> lock(mutex);
        wake.wait(lock, [this] { return !requests.empty(); });
        job = std::move(requests.front());
        requests.pop_front();
      }
      job->work();
    }
  }

  void ask(const std::shared_ptr<Job>& job, size_t count) {
    const std::lock_guard<std::mutex> guard(mutex);
    for (size_t i = 0; i < count; i++) requests.push_back(job);
    try {
      while (helpers < std::min(count, kMaxHelpers)) {
        startThread([this] { serve(); }).detach();
        helpers++;
      }
    } catch (const SystemError&) {
      // No more threads to be had: those that exist, the caller in any case, do it all.
    }
    wake.notify_all();
  }

  /** Requests that no helper got round to. */
  void forget(const std::shared_ptr<Job>& job) {
    const std::lock_guard<std::mutex> guard(mutex);
    requests.erase(std::remove(requests.begin(), requests.end(), job), requests.end());
  }
};

Pool& pool() {
  static Pool& instance = *new Pool();
  return instance;
}
}  // namespace

void runParallel(size_t tasks, size_t threads, const std::function<void(size_t)>& task) {
  const size_t helpers = std::min({threads, tasks, kMaxHelpers + 1});
  if (helpers <= 1) {
    for (size_t number = 0; number < tasks; number++) task(number);
    return;
  }
  const auto job = std::make_shared<Job>(tasks, task);
  pool().ask(job, helpers - 1);
  job->work();
  pool().forget(job);
  std::unique_lock<std::mutex> lock(job->mutex);
  job->finished.wait(lock, [&job] { return job->done == job->tasks; });
}

}  // namespace tidemark
