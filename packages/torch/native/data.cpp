// Tensor contents to and from JavaScript memory, without a copy where both sides allow it.
#include <ATen/DeviceAccelerator.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>

#include <cstring>

#include "addon.h"

namespace fmoe {
namespace {

// libtorch's kernels keep sets of dimensions in 64 bits.
constexpr size_t kMaxDimensions = 64;

std::vector<int64_t> int_vector(const Napi::Value& value) {
  const auto array = value.As<Napi::Array>();
  std::vector<int64_t> result(array.Length());
  for (uint32_t i = 0; i < array.Length(); ++i) result[i] = array.Get(i).As<Napi::Number>().Int64Value();
  return result;
}

// fromBuffer(arrayBuffer, byteOffset, byteLength, shape, dtype, copy) -> handle
Napi::Value from_buffer(const Napi::CallbackInfo& info) {
  Addon& addon = addon_of(info);
  auto buffer = info[0].As<Napi::ArrayBuffer>();
  const auto offset = static_cast<size_t>(info[1].As<Napi::Number>().Int64Value());
  const auto length = static_cast<size_t>(info[2].As<Napi::Number>().Int64Value());
  const auto sizes = int_vector(info[3]);
  const auto type = static_cast<at::ScalarType>(info[4].As<Napi::Number>().Int32Value());
  const bool copy = info[5].As<Napi::Boolean>();
  int64_t elements = 1;
  for (int64_t size : sizes) {
    TORCH_CHECK_VALUE(size >= 0, "a shape cannot have the negative size ", size);
    elements *= size;
  }
  TORCH_CHECK_VALUE(offset + length <= buffer.ByteLength(), "the view reaches past the end of its ArrayBuffer");
  TORCH_CHECK_VALUE(static_cast<size_t>(elements) * c10::elementSize(type) == length, "the shape [", at::IntArrayRef(sizes),
                    "] needs ", elements * c10::elementSize(type), " bytes of ", type, ", the data has ", length);
  TORCH_CHECK_VALUE(sizes.size() <= kMaxDimensions, "a tensor has at most ", kMaxDimensions, " dimensions, not ", sizes.size());
  char* start = static_cast<char*>(buffer.Data()) + offset;
  const auto options = at::TensorOptions().dtype(type);
  if (copy || length == 0) {
    at::Tensor tensor = at::empty(sizes, options);
    if (length != 0) std::memcpy(tensor.mutable_data_ptr(), start, length);
    return Napi::Number::New(info.Env(), addon.table.insert(std::move(tensor)));
  }
  // The tensor keeps the ArrayBuffer alive; its reference is dropped later on the JavaScript thread.
  napi_ref reference = nullptr;
  napi_create_reference(info.Env(), buffer, 1, &reference);
  auto deferred = addon.deferred;
  at::Tensor tensor = at::from_blob(start, sizes, [deferred, reference](void*) { deferred->push(reference); }, options);
  return Napi::Number::New(info.Env(), addon.table.insert(std::move(tensor)));
}

// toBuffer(handle) -> ArrayBuffer of the tensor's elements, row-major.
// A contiguous CPU tensor lends its own memory: the ArrayBuffer holds the storage until it is collected.
Napi::Value to_buffer(const Napi::CallbackInfo& info) {
  at::Tensor tensor = tensor_argument(info, 0).detach().resolve_conj().resolve_neg().cpu().contiguous();
  if (tensor.numel() == 0) return Napi::ArrayBuffer::New(info.Env(), 0);
  auto* owner = new at::Tensor(tensor);
  return Napi::ArrayBuffer::New(info.Env(), tensor.mutable_data_ptr(), tensor.nbytes(),
                                [](Napi::Env, void*, at::Tensor* held) { delete held; }, owner);
}

// Copies a device's tensor to the CPU on a worker thread, so that the event loop goes on.
class CopyToCpu : public Napi::AsyncWorker {
 public:
  CopyToCpu(Addon& addon, at::Tensor source)
      : Napi::AsyncWorker(addon.env), addon_(addon), deferred_(Napi::Promise::Deferred::New(addon.env)), tensor_(std::move(source)) {
    // The copy must follow what the calling thread's stream has queued.
    if (!tensor_.is_cpu()) stream_ = at::accelerator::getCurrentStream(tensor_.device().index());
  }

  Napi::Promise promise() const { return deferred_.Promise(); }

 protected:
  void Execute() override {
    try {
      if (stream_) at::accelerator::setCurrentStream(*stream_);
      tensor_ = tensor_.detach().cpu().contiguous();
    } catch (const c10::Error& e) {
      SetError(e.what_without_backtrace());
    } catch (const std::exception& e) {
      SetError(e.what());
    }
  }
  // Whichever scope is active by now has nothing to do with this tensor: it joins none, and the waiter moves it.
  void OnOK() override {
    const int32_t active = std::exchange(*addon_.table.active_scope(), static_cast<int32_t>(HandleTable::kRootScope));
    const double handle = addon_.table.insert(std::move(tensor_));
    *addon_.table.active_scope() = active;
    deferred_.Resolve(Napi::Number::New(Env(), handle));
  }
  void OnError(const Napi::Error& error) override {
    const Napi::Object value = error.Value();
    value.Set("code", "native:ERR_RUNTIME");
    deferred_.Reject(value);
  }

 private:
  Addon& addon_;
  Napi::Promise::Deferred deferred_;
  at::Tensor tensor_;
  std::optional<c10::Stream> stream_;
};

// toCpuAsync(handle) -> Promise of a handle
Napi::Value to_cpu_async(const Napi::CallbackInfo& info) {
  auto* worker = new CopyToCpu(addon_of(info), tensor_argument(info, 0));
  const auto promise = worker->promise();
  worker->Queue();
  return promise;
}

}  // namespace

void export_data(Addon& addon, Napi::Object exports) {
  export_all(addon, exports, {{"fromBuffer", from_buffer}, {"toBuffer", to_buffer}, {"toCpuAsync", to_cpu_async}});
}

}  // namespace fmoe
