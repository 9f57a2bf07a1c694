// What JavaScript asks of a tensor besides operators, and the scopes that own tensors.
#include <c10/core/Device.h>

#include "addon.h"

namespace fmoe {
namespace {

Napi::Array int_array(Napi::Env env, at::IntArrayRef values) {
  auto array = Napi::Array::New(env, values.size());
  for (size_t i = 0; i < values.size(); ++i) {
    array.Set(static_cast<uint32_t>(i), Napi::Number::New(env, static_cast<double>(values[i])));
  }
  return array;
}

Napi::Value shape(const Napi::CallbackInfo& info) { return int_array(info.Env(), tensor_argument(info, 0).sizes()); }

Napi::Value strides(const Napi::CallbackInfo& info) { return int_array(info.Env(), tensor_argument(info, 0).strides()); }

Napi::Value dtype(const Napi::CallbackInfo& info) {
  return Napi::Number::New(info.Env(), static_cast<double>(tensor_argument(info, 0).scalar_type()));
}

Napi::Value device(const Napi::CallbackInfo& info) {
  return Napi::String::New(info.Env(), tensor_argument(info, 0).device().str());
}

Napi::Value storage_offset(const Napi::CallbackInfo& info) {
  return Napi::Number::New(info.Env(), static_cast<double>(tensor_argument(info, 0).storage_offset()));
}

Napi::Value is_contiguous(const Napi::CallbackInfo& info) {
  return Napi::Boolean::New(info.Env(), tensor_argument(info, 0).is_contiguous());
}

// The address of the first element: tells whether two tensors share memory.
Napi::Value data_pointer(const Napi::CallbackInfo& info) {
  const auto address = reinterpret_cast<uintptr_t>(tensor_argument(info, 0).const_data_ptr());
  return Napi::BigInt::New(info.Env(), static_cast<uint64_t>(address));
}

Napi::Value version(const Napi::CallbackInfo& info) {
  return Napi::Number::New(info.Env(), static_cast<double>(tensor_argument(info, 0)._version()));
}

// alias(handle) -> another handle to the same tensor.
Napi::Value alias(const Napi::CallbackInfo& info) {
  return Napi::Number::New(info.Env(), addon_of(info).table.insert(tensor_argument(info, 0)));
}

// --- lifetime ---------------------------------------------------------------------------------------------------

Napi::Value release(const Napi::CallbackInfo& info) {
  Addon& addon = addon_of(info);
  const bool freed = addon.table.release(info[0].As<Napi::Number>().DoubleValue());
  addon.deferred->drain(info.Env());
  return Napi::Boolean::New(info.Env(), freed);
}

Napi::Value is_live(const Napi::CallbackInfo& info) {
  return Napi::Boolean::New(info.Env(), addon_of(info).table.is_live(info[0].As<Napi::Number>().DoubleValue()));
}

Napi::Value move_to_scope(const Napi::CallbackInfo& info) {
  addon_of(info).table.move(info[0].As<Napi::Number>().DoubleValue(), info[1].As<Napi::Number>().Uint32Value());
  return info.Env().Undefined();
}

Napi::Value scope_of(const Napi::CallbackInfo& info) {
  return Napi::Number::New(info.Env(), addon_of(info).table.scope_of(info[0].As<Napi::Number>().DoubleValue()));
}

Napi::Value open_scope(const Napi::CallbackInfo& info) {
  return Napi::Number::New(info.Env(), addon_of(info).table.open_scope());
}

Napi::Value close_scope(const Napi::CallbackInfo& info) {
  Addon& addon = addon_of(info);
  const size_t freed = addon.table.close_scope(info[0].As<Napi::Number>().Uint32Value());
  addon.deferred->drain(info.Env());
  return Napi::Number::New(info.Env(), static_cast<double>(freed));
}

// tableStatistics() -> [live tensors, tensors ever created, open scopes]
Napi::Value table_statistics(const Napi::CallbackInfo& info) {
  const HandleTable& table = addon_of(info).table;
  auto array = Napi::Array::New(info.Env(), 3);
  array.Set(0u, Napi::Number::New(info.Env(), static_cast<double>(table.live())));
  array.Set(1u, Napi::Number::New(info.Env(), table.created()));
  array.Set(2u, Napi::Number::New(info.Env(), static_cast<double>(table.open_scopes())));
  return array;
}

}  // namespace

void export_tensor(Addon& addon, Napi::Object exports) {
  export_all(addon, exports,
             {{"shape", shape}, {"strides", strides}, {"dtype", dtype}, {"device", device},
              {"storageOffset", storage_offset}, {"isContiguous", is_contiguous}, {"dataPointer", data_pointer},
              {"version", version}, {"alias", alias}, {"release", release}, {"isLive", is_live},
              {"moveToScope", move_to_scope}, {"scopeOf", scope_of}, {"openScope", open_scope},
              {"closeScope", close_scope}, {"tableStatistics", table_statistics}});
  // JavaScript writes the active scope here before it calls an operator.
  auto memory = Napi::ArrayBuffer::New(addon.env, addon.table.active_scope(), sizeof(int32_t));
  exports.Set("activeScope", Napi::Int32Array::New(addon.env, 1, memory, 0));
}

}  // namespace fmoe
