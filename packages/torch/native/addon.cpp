#include "addon.h"

#include <c10/core/Device.h>
#include <torch/version.h>

#include <cstdlib>
#ifdef __GLIBC__
#include <malloc.h>
#endif

#include "errors.h"
#include "js-callbacks.h"
#include "operator.h"

namespace fmoe {

void DeferredReferences::push(napi_ref reference) {
  std::lock_guard<std::mutex> lock(mutex_);
  references_.push_back(reference);
}

void DeferredReferences::drain(napi_env env) {
  std::vector<napi_ref> references;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    references.swap(references_);
  }
  for (napi_ref reference : references) napi_delete_reference(env, reference);
}

Addon::Addon(Napi::Env environment)
    : env(environment), deferred(std::make_shared<DeferredReferences>()), pump(std::make_unique<JsPump>()) {
  const auto report = [](void* context, int64_t bytes) {
    int64_t total = 0;
    napi_adjust_external_memory(static_cast<napi_env>(context), bytes, &total);
  };
  table.report_memory_to(report, environment);
}

Addon::~Addon() { table.report_memory_to(nullptr, nullptr); }

std::vector<at::Tensor> tensor_list(Addon& addon, const Napi::Value& handles) {
  const auto array = handles.As<Napi::Float64Array>();
  std::vector<at::Tensor> tensors;
  tensors.reserve(array.ElementLength());
  for (size_t i = 0; i < array.ElementLength(); ++i) {
    tensors.push_back(array[i] == 0 ? at::Tensor() : addon.table.get(array[i]));
  }
  return tensors;
}

Napi::Array handle_array(Addon& addon, std::vector<at::Tensor> tensors) {
  auto array = Napi::Array::New(addon.env, tensors.size());
  for (size_t i = 0; i < tensors.size(); ++i) {
    array.Set(static_cast<uint32_t>(i),
              Napi::Number::New(addon.env, tensors[i].defined() ? addon.table.insert(std::move(tensors[i])) : 0));
  }
  return array;
}

c10::Device device_argument(const Napi::Value& value) { return c10::Device(value.As<Napi::String>().Utf8Value()); }

namespace {

struct Bound {
  NativeFunction function;
  Addon* addon;
};

// Every exported function runs through here, so that no C++ exception escapes into Node.
napi_value invoke(napi_env env, napi_callback_info raw) {
  void* data = nullptr;
  napi_get_cb_info(env, raw, nullptr, nullptr, nullptr, &data);
  const auto* bound = static_cast<Bound*>(data);
  return guarded(env, [&]() -> napi_value {
    Napi::CallbackInfo info(env, raw);
    info.SetData(bound->addon);
    return bound->function(info);
  });
}

}  // namespace

void export_all(Addon& addon, Napi::Object exports, std::initializer_list<Export> functions) {
  for (const Export& entry : functions) {
    auto* bound = new Bound{entry.function, &addon};  // lives as long as the module
    napi_value function = nullptr;
    napi_create_function(addon.env, entry.name, NAPI_AUTO_LENGTH, invoke, bound, &function);
    exports.Set(entry.name, Napi::Value(addon.env, function));
  }
}

namespace {

// A training step allocates and frees the same blocks again and again. By default glibc gives large ones back to the system
// each time and takes them again page by page, which costs more than to fill them: a step whose tensors have 64 MiB takes a
// quarter less time without. Blocks of up to 1 GiB therefore come from the heap, which keeps as much at its end and all that is
// free before it; malloc_trim(0) gives that back. What the user has set in the environment stands.
void keep_freed_memory() {
#ifdef __GLIBC__
  for (const char* name : {"MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "MALLOC_TOP_PAD_", "GLIBC_TUNABLES"}) {
    if (std::getenv(name) != nullptr) return;
  }
  // Before version 2.35 glibc refuses more than 32 MiB.
  if (mallopt(M_MMAP_THRESHOLD, 1 << 30) == 0) mallopt(M_MMAP_THRESHOLD, 32 << 20);
  mallopt(M_TRIM_THRESHOLD, 1 << 30);
  mallopt(M_TOP_PAD, 32 << 20);
#endif
}

Napi::Object initialise(Napi::Env env, Napi::Object exports) {
  keep_freed_memory();
  auto* addon = new Addon(env);
  env.SetInstanceData<Addon>(addon);
  exports.Set("torchVersion", Napi::String::New(env, TORCH_VERSION));
  export_schema(*addon, exports);
  export_call(*addon, exports);
  export_tensor(*addon, exports);
  export_data(*addon, exports);
  export_autograd(*addon, exports);
  export_runtime(*addon, exports);
  export_profiler(*addon, exports);
  export_memory_limit(*addon, exports);
  return exports;
}

}  // namespace
}  // namespace fmoe

static Napi::Object initialise_module(Napi::Env env, Napi::Object exports) { return fmoe::initialise(env, exports); }

NODE_API_MODULE(fmoe_torch, initialise_module)
