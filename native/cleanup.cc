#include "cleanup.h"

namespace tidemark {

Cleanup* Cleanup::add(napi_env env, Action action, uint32_t id) {
  auto* cleanup = new Cleanup();
  cleanup->env_ = env;
  cleanup->action_ = action;
  cleanup->id_ = id;
  napi_add_env_cleanup_hook(env, run, cleanup);
  return cleanup;
}

void Cleanup::remove(napi_env env, Cleanup* cleanup) {
  // In another thread the owner may be running (and deleting) it right now, so it must not even be looked at: callers
  // pass it only together with a thing that the hook has not taken out of its registry yet.
  if (cleanup == nullptr || cleanup->env_ != env) return;
  napi_remove_env_cleanup_hook(env, run, cleanup);
  delete cleanup;
}

void Cleanup::run(void* self) {
  auto* cleanup = static_cast<Cleanup*>(self);
  cleanup->action_(cleanup->id_);
  delete cleanup;
}

}  // namespace tidemark
