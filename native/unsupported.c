#include <node_api.h>

/* Built where there is no userfaultfd: loading fails, which lib/kernel/addon.ts reports as TIDEMARK_KERNEL_UNSUPPORTED. */
NAPI_MODULE_INIT() {
  (void)exports;
  napi_throw_error(env, "ERR_UNSUPPORTED", "tidemark tracks memory with userfaultfd, which only Linux has");
  return NULL;
}
