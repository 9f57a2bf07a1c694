#include "js-callbacks.h"

#include <ATen/DeviceAccelerator.h>
#include <ATen/ThreadLocalState.h>
#include <torch/csrc/autograd/engine.h>

namespace fmoe {

bool JsPump::needs_pump() const {
  return live_callbacks > 0 && (always || at::accelerator::isAccelerator(c10::DeviceType::CUDA));
}

void JsPump::run_engine(const std::function<void()>& work) {
  if (!needs_pump()) return work();

  bool finished = false;
  std::exception_ptr error;
  const at::ThreadLocalState state;
  std::optional<c10::Stream> stream;
  if (at::accelerator::deviceCount() > 0) stream = at::accelerator::getCurrentStream(at::accelerator::getDeviceIndex());
  const std::function<void()> errand = [&] {
    try {
      const at::ThreadLocalStateGuard guard(state);
      if (stream) at::accelerator::setCurrentStream(*stream);
      work();
    } catch (...) {
      error = std::current_exception();
    }
    std::lock_guard<std::mutex> lock(mutex_);
    finished = true;
    js_changed_.notify_all();
  };

  std::unique_lock<std::mutex> lock(mutex_);
  std::thread helper;
  if (waiting_.empty()) {
    helper = std::thread(errand);
  } else {
    waiting_.back()->errand = &errand;
    waiting_.back()->changed.notify_all();
  }
  while (!finished) {
    js_changed_.wait(lock, [&] { return finished || !requests_.empty(); });
    if (!requests_.empty()) serve(lock);
  }
  lock.unlock();
  if (helper.joinable()) helper.join();
  if (error) std::rethrow_exception(error);
}

void JsPump::serve(std::unique_lock<std::mutex>& lock) {
  Request* request = requests_.front();
  requests_.pop_front();
  waiting_.push_back(request);
  lock.unlock();
  try {
    (*request->body)();
  } catch (...) {
    request->error = std::current_exception();
  }
  lock.lock();
  waiting_.pop_back();
  request->done = true;
  request->changed.notify_all();
}

void JsPump::call_on_js(const std::function<void()>& body) {
  if (std::this_thread::get_id() == js_thread_) return body();
  const at::ThreadLocalState state;
  std::optional<c10::Stream> stream;
  if (at::accelerator::deviceCount() > 0) stream = at::accelerator::getCurrentStream(at::accelerator::getDeviceIndex());
  const std::function<void()> carried = [&] {
    const at::ThreadLocalStateGuard guard(state);
    if (!stream) return body();
    const auto previous_device = at::accelerator::exchangeDevice(stream->device_index());
    const auto previous = at::accelerator::getCurrentStream(stream->device_index());
    at::accelerator::setCurrentStream(*stream);
    std::exception_ptr error;
    try {
      body();
    } catch (...) {
      error = std::current_exception();
    }
    at::accelerator::setCurrentStream(previous);
    at::accelerator::setDeviceIndex(previous_device);
    if (error) std::rethrow_exception(error);
  };

  Request request;
  request.body = &carried;
  std::unique_lock<std::mutex> lock(mutex_);
  requests_.push_back(&request);
  js_changed_.notify_all();
  while (!request.done) {
    request.changed.wait(lock, [&] { return request.done || request.errand; });
    if (request.errand) {
      const auto* errand = std::exchange(request.errand, nullptr);
      lock.unlock();
      (*errand)();
      lock.lock();
    }
  }
  if (request.error) std::rethrow_exception(request.error);
}

JsException::JsException(Addon& addon) {
  napi_value thrown = nullptr;
  napi_value array = nullptr;
  napi_get_and_clear_last_exception(addon.env, &thrown);
  napi_create_array_with_length(addon.env, 1, &array);
  napi_set_element(addon.env, array, 0, thrown);
  napi_ref reference = nullptr;
  napi_create_reference(addon.env, array, 1, &reference);
  holder_ = std::shared_ptr<napi_ref>(new napi_ref(reference), [deferred = addon.deferred](napi_ref* dying) {
    deferred->push(*dying);
    delete dying;
  });
}

void JsException::rethrow(napi_env env) const {
  napi_value array = nullptr;
  napi_value thrown = nullptr;
  napi_get_reference_value(env, *holder_, &array);
  napi_get_element(env, array, 0, &thrown);
  napi_throw(env, thrown);
}

JsFunction::JsFunction(Addon& addon, const Napi::Function& function) : addon_(addon), deferred_(addon.deferred) {
  napi_create_reference(addon.env, function, 1, &reference_);
  ++addon.pump->live_callbacks;
}

JsFunction::~JsFunction() {
  deferred_->push(reference_);
  --addon_.pump->live_callbacks;
}

std::vector<at::Tensor> JsFunction::operator()(const std::vector<std::vector<at::Tensor>>& arguments) const {
  std::vector<at::Tensor> results;
  // The engine knows this on its own thread only.
  const bool all_leaves = torch::autograd::Engine::get_default_engine().is_checkpoint_valid();
  addon_.pump->call_on_js([&] {
    const bool outer = std::exchange(addon_.pump->all_leaves, all_leaves);
    try {
      results = call_here(arguments);
    } catch (...) {
      addon_.pump->all_leaves = outer;
      throw;
    }
    addon_.pump->all_leaves = outer;
  });
  return results;
}

std::vector<at::Tensor> JsFunction::call_here(const std::vector<std::vector<at::Tensor>>& arguments) const {
  const Napi::HandleScope handle_scope(addon_.env);
  HandleTable& table = addon_.table;
  const int32_t outer = *table.active_scope();
  const uint32_t scope = table.open_scope();
  *table.active_scope() = static_cast<int32_t>(scope);
  const auto leave = [&] {
    *table.active_scope() = outer;
    table.close_scope(scope);
  };
  std::vector<at::Tensor> results;
  try {
    results = call_function(arguments);
  } catch (...) {
    leave();
    throw;
  }
  leave();
  return results;
}

std::vector<at::Tensor> JsFunction::call_function(const std::vector<std::vector<at::Tensor>>& arguments) const {
  napi_env env = addon_.env;
  napi_value function = nullptr;
  napi_value receiver = nullptr;
  napi_value returned = nullptr;
  napi_get_reference_value(env, reference_, &function);
  napi_get_undefined(env, &receiver);
  std::vector<napi_value> values;
  for (const auto& tensors : arguments) values.push_back(handle_array(addon_, tensors));
  if (napi_call_function(env, receiver, function, values.size(), values.data(), &returned) != napi_ok) {
    bool pending = false;
    napi_is_exception_pending(env, &pending);
    if (pending) throw JsException(addon_);
    throw std::runtime_error("JavaScript cannot be called: its environment is ending");
  }
  const auto handles = Napi::Value(env, returned).As<Napi::Array>();
  std::vector<at::Tensor> results;
  for (uint32_t i = 0; i < handles.Length(); ++i) {
    const double handle = handles.Get(i).As<Napi::Number>().DoubleValue();
    results.push_back(handle == 0 ? at::Tensor() : addon_.table.get(handle));
  }
  return results;
}

}  // namespace fmoe
