#include "js-callbacks.h"

#include <ATen/DeviceAccelerator.h>
#include <ATen/ThreadLocalState.h>

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
  addon_.pump->call_on_js([&] { results = call_here(arguments); });
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
    napi_value function = nullptr;
    napi_get_reference_value(addon_.env, reference_, &function);
    std::vector<napi_value> values;
    for (const auto& tensors : arguments) values.push_back(handle_array(addon_, tensors));
    const auto returned = Napi::Function(addon_.env, function).Call(values).As<Napi::Array>();
    for (uint32_t i = 0; i < returned.Length(); ++i) {
      const double handle = returned.Get(i).As<Napi::Number>().DoubleValue();
      results.push_back(handle == 0 ? at::Tensor() : table.get(handle));
    }
  } catch (...) {
    leave();
    throw;
  }
  leave();
  return results;
}

}  // namespace fmoe
