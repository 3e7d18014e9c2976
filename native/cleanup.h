#pragma once
#include <node_api.h>

#include <cstdint>

namespace tidemark {

/**
 * Gives one thing up when the environment (main thread or worker) that owns it ends. Hooks run in the reverse order of
 * their registration, so each thing gets its own when it is made: a store's lock is given up after the database that was opened
 * under it has been closed, and waiters of a ring hear of it before a database takes its time to close.
 */
class Cleanup {
 public:
  using Action = void (*)(uint32_t id);
  static Cleanup* add(napi_env env, Action action, uint32_t id);
  /**
   * The thing is gone. Only the owner's thread may take the hook away; called from another one this does nothing, and
   * the hook finds an id that is closed.
   */
  static void remove(napi_env env, Cleanup* cleanup);

 private:
  static void run(void* self);
  napi_env env_;
  Action action_;
  uint32_t id_;
};

}  // namespace tidemark
