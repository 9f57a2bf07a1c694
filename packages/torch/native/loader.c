// Opens shared libraries by absolute path for the process, before the addon that needs them is loaded.
// Knows nothing of libtorch: it must load on a machine where libtorch is missing, so that the error can say so.
#include <dlfcn.h>
#include <node_api.h>

#define MAX_PATH_BYTES 4096

// open(path) -> null, or the loader's error text. Libraries stay open for the life of the process.
static napi_value open_library(napi_env env, napi_callback_info info) {
  size_t count = 1;
  napi_value argument, result;
  char path[MAX_PATH_BYTES];
  size_t length = 0;
  napi_get_cb_info(env, info, &count, &argument, NULL, NULL);
  if (count < 1 || napi_get_value_string_utf8(env, argument, path, sizeof path, &length) != napi_ok ||
      length >= sizeof path - 1) {
    napi_throw_type_error(env, "ERR_ARGUMENT", "open(path): expected a path shorter than 4095 bytes");
    return NULL;
  }
  if (dlopen(path, RTLD_NOW | RTLD_LOCAL) == NULL) {
    const char* message = dlerror();
    napi_create_string_utf8(env, message ? message : "unknown dlopen error", NAPI_AUTO_LENGTH, &result);
  } else {
    napi_get_null(env, &result);
  }
  return result;
}

NAPI_MODULE_INIT() {
  napi_value function;
  napi_create_function(env, "open", NAPI_AUTO_LENGTH, open_library, NULL, &function);
  napi_set_named_property(env, exports, "open", function);
  return exports;
}
