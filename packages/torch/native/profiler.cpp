// libtorch's Kineto profiler, written out as a Chrome trace.
#include <torch/csrc/autograd/profiler_kineto.h>

#include "addon.h"

namespace fmoe {
namespace {

namespace impl = torch::profiler::impl;

std::set<impl::ActivityType>& activities() {
  static std::set<impl::ActivityType> active;
  return active;
}

// startProfiler(withCuda, recordShapes, profileMemory)
Napi::Value start_profiler(const Napi::CallbackInfo& info) {
  activities() = {impl::ActivityType::CPU};
  if (info[0].As<Napi::Boolean>()) activities().insert(impl::ActivityType::CUDA);
  const impl::ProfilerConfig config(impl::ProfilerState::KINETO, info[1].As<Napi::Boolean>(), info[2].As<Napi::Boolean>());
  torch::autograd::profiler::prepareProfiler(config, activities());
  torch::autograd::profiler::enableProfiler(config, activities());
  return info.Env().Undefined();
}

// stopProfiler(path): writes the trace
Napi::Value stop_profiler(const Napi::CallbackInfo& info) {
  const auto result = torch::autograd::profiler::disableProfiler();
  result->save(info[0].As<Napi::String>());
  return info.Env().Undefined();
}

}  // namespace

void export_profiler(Addon& addon, Napi::Object exports) {
  export_all(addon, exports, {{"startProfiler", start_profiler}, {"stopProfiler", stop_profiler}});
}

}  // namespace fmoe
