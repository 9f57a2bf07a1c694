// What one instance of the addon owns, and how its functions reach it.
#pragma once

#include <napi.h>

#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

#include "handle-table.h"

namespace fmoe {

struct Operator;
class JsPump;

// JavaScript references whose last native owner died on any thread or inside the handle table. They are
// deleted later, on the JavaScript thread, outside of any tensor's destructor.
class DeferredReferences {
 public:
  void push(napi_ref reference);
  void drain(napi_env env);

 private:
  std::mutex mutex_;
  std::vector<napi_ref> references_;
};

struct Addon {
  explicit Addon(Napi::Env environment);
  ~Addon();

  Napi::Env env;
  std::vector<std::unique_ptr<Operator>> operators;
  std::unordered_map<std::string, uint32_t> operator_ids;
  std::shared_ptr<DeferredReferences> deferred;
  std::unique_ptr<JsPump> pump;
  // Last, so that it dies first: graphs that its tensors hold still use the members above.
  HandleTable table;
};

inline Addon& addon_of(const Napi::CallbackInfo& info) { return *static_cast<Addon*>(info.Data()); }

// --- values -----------------------------------------------------------------------------------------------------

inline const at::Tensor& tensor_argument(const Napi::CallbackInfo& info, size_t index) {
  return addon_of(info).table.get(info[index].As<Napi::Number>().DoubleValue());
}

// Handles cross as a Float64Array; handle 0 stands for "no tensor".
std::vector<at::Tensor> tensor_list(Addon& addon, const Napi::Value& handles);
Napi::Array handle_array(Addon& addon, std::vector<at::Tensor> tensors);

c10::Device device_argument(const Napi::Value& value);

// --- functions --------------------------------------------------------------------------------------------------

using NativeFunction = Napi::Value (*)(const Napi::CallbackInfo&);

struct Export {
  const char* name;
  NativeFunction function;
};

// Each file adds its functions to the module through one of these.
void export_schema(Addon& addon, Napi::Object exports);
void export_call(Addon& addon, Napi::Object exports);
void export_tensor(Addon& addon, Napi::Object exports);
void export_data(Addon& addon, Napi::Object exports);
void export_autograd(Addon& addon, Napi::Object exports);
void export_runtime(Addon& addon, Napi::Object exports);
void export_profiler(Addon& addon, Napi::Object exports);
void export_memory_limit(Addon& addon, Napi::Object exports);

void export_all(Addon& addon, Napi::Object exports, std::initializer_list<Export> functions);

}  // namespace fmoe
