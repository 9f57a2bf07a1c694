// Devices, streams, memory, random state, threads and autocast. Nothing here needs CUDA's headers.
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Context.h>
#include <ATen/DeviceAccelerator.h>
#include <ATen/Parallel.h>
#include <ATen/autocast_mode.h>
#include <ATen/core/Generator.h>
#include <c10/core/Event.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include <deque>
#include <mutex>

#include "addon.h"

namespace fmoe {

namespace {

// Of the whole process, since Workers share it; a deque never moves its elements.
struct Generators {
  std::mutex mutex;
  std::deque<at::Generator> all;
};

Generators& generators() {
  static Generators instance;
  return instance;
}

}  // namespace

const at::Generator& generator_at(uint32_t id) {
  std::lock_guard<std::mutex> lock(generators().mutex);
  if (id >= generators().all.size()) throw std::invalid_argument("unknown generator");
  return generators().all[id];
}

namespace {

// --- random state -----------------------------------------------------------------------------------------------

at::Generator default_generator(const c10::Device& device) { return at::globalContext().defaultGenerator(device); }

// newGenerator(device) -> id
Napi::Value new_generator(const Napi::CallbackInfo& info) {
  const auto device = device_argument(info[0]);
  auto generator = device.is_cpu()
                       ? at::detail::createCPUGenerator()
                       : at::globalContext().getAcceleratorHooksInterface(device.type()).getNewGenerator(device.index());
  std::lock_guard<std::mutex> lock(generators().mutex);
  generators().all.push_back(std::move(generator));
  return Napi::Number::New(info.Env(), static_cast<double>(generators().all.size() - 1));
}

// The generator of arguments 0 (a device's default generator, by name) or of a generator id.
at::Generator generator_argument(const Napi::CallbackInfo& info) {
  if (info[0].IsNumber()) return generator_at(info[0].As<Napi::Number>().Uint32Value());
  return default_generator(device_argument(info[0]));
}

Napi::Value set_seed(const Napi::CallbackInfo& info) {
  auto generator = generator_argument(info);
  bool lossless = false;
  const uint64_t seed = info[1].As<Napi::BigInt>().Uint64Value(&lossless);
  std::lock_guard<std::mutex> lock(generator.mutex());
  generator.set_current_seed(seed);
  return info.Env().Undefined();
}

Napi::Value get_seed(const Napi::CallbackInfo& info) {
  return Napi::BigInt::New(info.Env(), static_cast<uint64_t>(generator_argument(info).current_seed()));
}

Napi::Value get_random_state(const Napi::CallbackInfo& info) {
  auto generator = generator_argument(info);
  std::lock_guard<std::mutex> lock(generator.mutex());
  return Napi::Number::New(info.Env(), addon_of(info).table.insert(generator.get_state()));
}

Napi::Value set_random_state(const Napi::CallbackInfo& info) {
  auto generator = generator_argument(info);
  const at::Tensor& state = tensor_argument(info, 1);
  std::lock_guard<std::mutex> lock(generator.mutex());
  generator.set_state(state);
  return info.Env().Undefined();
}

// --- threads ----------------------------------------------------------------------------------------------------

Napi::Value set_num_threads(const Napi::CallbackInfo& info) {
  const int threads = info[0].As<Napi::Number>().Int32Value();
  TORCH_CHECK_VALUE(threads > 0, "the number of threads must be positive, got ", threads);
  at::set_num_threads(threads);
  return info.Env().Undefined();
}

Napi::Value get_num_threads(const Napi::CallbackInfo& info) {
  return Napi::Number::New(info.Env(), at::get_num_threads());
}

// --- devices ----------------------------------------------------------------------------------------------------

Napi::Value device_count(const Napi::CallbackInfo& info) {
  return Napi::Number::New(info.Env(), at::accelerator::isAccelerator(c10::DeviceType::CUDA) ? at::accelerator::deviceCount() : 0);
}

c10::DeviceIndex index_argument(const Napi::CallbackInfo& info, size_t position) {
  return static_cast<c10::DeviceIndex>(info[position].As<Napi::Number>().Int32Value());
}

Napi::Value current_device(const Napi::CallbackInfo& info) {
  return Napi::Number::New(info.Env(), at::accelerator::getDeviceIndex());
}

Napi::Value set_device(const Napi::CallbackInfo& info) {
  at::accelerator::setDeviceIndex(index_argument(info, 0));
  return info.Env().Undefined();
}

Napi::Value synchronize(const Napi::CallbackInfo& info) {
  at::accelerator::synchronizeDevice(index_argument(info, 0));
  return info.Env().Undefined();
}

Napi::Value empty_cache(const Napi::CallbackInfo& info) {
  at::accelerator::emptyCache();
  return info.Env().Undefined();
}

// memoryStatistics(device) -> { allocated, allocatedPeak, reserved, reservedPeak } in bytes
Napi::Value memory_statistics(const Napi::CallbackInfo& info) {
  const auto statistics = at::accelerator::getDeviceStats(index_argument(info, 0));
  const auto& allocated = statistics.allocated_bytes[0];
  const auto& reserved = statistics.reserved_bytes[0];
  auto result = Napi::Object::New(info.Env());
  result.Set("allocated", static_cast<double>(allocated.current));
  result.Set("allocatedPeak", static_cast<double>(allocated.peak));
  result.Set("reserved", static_cast<double>(reserved.current));
  result.Set("reservedPeak", static_cast<double>(reserved.peak));
  return result;
}

Napi::Value reset_peak_memory(const Napi::CallbackInfo& info) {
  at::accelerator::resetPeakStats(index_argument(info, 0));
  return info.Env().Undefined();
}

// --- streams and events -----------------------------------------------------------------------------------------

Napi::Value wrap_stream(Napi::Env env, const c10::Stream& stream) {
  return Napi::External<c10::Stream>::New(env, new c10::Stream(stream), [](Napi::Env, c10::Stream* s) { delete s; });
}

const c10::Stream& stream_argument(const Napi::CallbackInfo& info, size_t position) {
  return *info[position].As<Napi::External<c10::Stream>>().Data();
}

// newStream(device, highPriority)
Napi::Value new_stream(const Napi::CallbackInfo& info) {
  const c10::Device device(at::accelerator::getAccelerator(true).value(), index_argument(info, 0));
  const c10::impl::VirtualGuardImpl guard(device.type());
  return wrap_stream(info.Env(), guard.getStreamFromGlobalPool(device, info[1].As<Napi::Boolean>()));
}

Napi::Value current_stream(const Napi::CallbackInfo& info) {
  return wrap_stream(info.Env(), at::accelerator::getCurrentStream(index_argument(info, 0)));
}

Napi::Value set_stream(const Napi::CallbackInfo& info) {
  at::accelerator::setCurrentStream(stream_argument(info, 0));
  return info.Env().Undefined();
}

Napi::Value synchronize_stream(const Napi::CallbackInfo& info) {
  stream_argument(info, 0).synchronize();
  return info.Env().Undefined();
}

Napi::Value query_stream(const Napi::CallbackInfo& info) {
  return Napi::Boolean::New(info.Env(), stream_argument(info, 0).query());
}

c10::Event& event_argument(const Napi::CallbackInfo& info, size_t position) {
  return *info[position].As<Napi::External<c10::Event>>().Data();
}

// newEvent(enableTiming)
Napi::Value new_event(const Napi::CallbackInfo& info) {
  const auto flag = info[0].As<Napi::Boolean>() ? c10::EventFlag::BACKEND_DEFAULT : c10::EventFlag::PYTORCH_DEFAULT;
  auto* event = new c10::Event(at::accelerator::getAccelerator(true).value(), flag);
  return Napi::External<c10::Event>::New(info.Env(), event, [](Napi::Env, c10::Event* e) { delete e; });
}

Napi::Value record_event(const Napi::CallbackInfo& info) {
  event_argument(info, 0).record(stream_argument(info, 1));
  return info.Env().Undefined();
}

// waitEvent(event, stream): the stream waits, the caller does not
Napi::Value wait_event(const Napi::CallbackInfo& info) {
  event_argument(info, 0).block(stream_argument(info, 1));
  return info.Env().Undefined();
}

Napi::Value synchronize_event(const Napi::CallbackInfo& info) {
  event_argument(info, 0).synchronize();
  return info.Env().Undefined();
}

Napi::Value query_event(const Napi::CallbackInfo& info) {
  return Napi::Boolean::New(info.Env(), event_argument(info, 0).query());
}

Napi::Value elapsed_time(const Napi::CallbackInfo& info) {
  return Napi::Number::New(info.Env(), event_argument(info, 0).elapsedTime(event_argument(info, 1)));
}

// --- autocast ---------------------------------------------------------------------------------------------------

// enterAutocast(deviceType, dtype or -1 for "off") -> [was enabled, previous dtype]
Napi::Value enter_autocast(const Napi::CallbackInfo& info) {
  const auto type = device_argument(info[0]).type();
  const int dtype = info[1].As<Napi::Number>().Int32Value();
  auto previous = Napi::Array::New(info.Env(), 2);
  previous.Set(0u, Napi::Boolean::New(info.Env(), at::autocast::is_autocast_enabled(type)));
  previous.Set(1u, Napi::Number::New(info.Env(), static_cast<double>(at::autocast::get_autocast_dtype(type))));
  at::autocast::set_autocast_enabled(type, dtype >= 0);
  if (dtype >= 0) at::autocast::set_autocast_dtype(type, static_cast<at::ScalarType>(dtype));
  at::autocast::increment_nesting();
  return previous;
}

// exitAutocast(deviceType, wasEnabled, previousDtype)
Napi::Value exit_autocast(const Napi::CallbackInfo& info) {
  const auto type = device_argument(info[0]).type();
  at::autocast::set_autocast_enabled(type, info[1].As<Napi::Boolean>());
  at::autocast::set_autocast_dtype(type, static_cast<at::ScalarType>(info[2].As<Napi::Number>().Int32Value()));
  if (at::autocast::decrement_nesting() == 0) at::autocast::clear_cache();
  return info.Env().Undefined();
}

// autocastState(deviceType) -> the dtype, or -1 when off
Napi::Value autocast_state(const Napi::CallbackInfo& info) {
  const auto type = device_argument(info[0]).type();
  return Napi::Number::New(info.Env(), at::autocast::is_autocast_enabled(type)
                                           ? static_cast<double>(at::autocast::get_autocast_dtype(type))
                                           : -1);
}

}  // namespace

void export_runtime(Addon& addon, Napi::Object exports) {
  export_all(addon, exports,
             {{"newGenerator", new_generator}, {"setSeed", set_seed}, {"getSeed", get_seed},
              {"getRandomState", get_random_state}, {"setRandomState", set_random_state},
              {"setNumThreads", set_num_threads}, {"getNumThreads", get_num_threads},
              {"deviceCount", device_count}, {"currentDevice", current_device}, {"setDevice", set_device},
              {"synchronize", synchronize}, {"emptyCache", empty_cache}, {"memoryStatistics", memory_statistics},
              {"resetPeakMemory", reset_peak_memory}, {"newStream", new_stream}, {"currentStream", current_stream},
              {"setStream", set_stream}, {"synchronizeStream", synchronize_stream}, {"queryStream", query_stream},
              {"newEvent", new_event}, {"recordEvent", record_event}, {"waitEvent", wait_event},
              {"synchronizeEvent", synchronize_event}, {"queryEvent", query_event}, {"elapsedTime", elapsed_time},
              {"enterAutocast", enter_autocast}, {"exitAutocast", exit_autocast}, {"autocastState", autocast_state}});
}

}  // namespace fmoe
