// Under autocast the grouped linear and the expert MLP run in the lower precision, as torch.nn.functional.linear does. Dispatch and
// combine take what they get: they move rows, and accumulate in float32 in any case.
#include "ops.h"

#include <ATen/autocast_mode.h>
#include <torch/library.h>

namespace fmoe {

namespace {

using at::Tensor;

template <c10::DeviceType device>
Tensor grouped_linear(
    const Tensor& x, const Tensor& weight, const std::optional<Tensor>& bias, const Tensor& offsets) {
  const c10::impl::ExcludeDispatchKeyGuard no_autocast(
      at::autocast::get_autocast_dispatch_key_from_device_type(device));
  const auto dtype = at::autocast::get_autocast_dtype(device);
  return ops::grouped_linear(
      at::autocast::cached_cast(dtype, x, device), at::autocast::cached_cast(dtype, weight, device),
      at::autocast::cached_cast(dtype, bias, device), offsets);
}

// The logits are in float32 whatever autocast says.
template <c10::DeviceType device>
Tensor router_logits(const Tensor& x, const Tensor& weight, const std::optional<Tensor>& bias) {
  const c10::impl::ExcludeDispatchKeyGuard no_autocast(
      at::autocast::get_autocast_dispatch_key_from_device_type(device));
  return ops::router_logits(x, weight, bias);
}

// Scores keep their dtype: a router in float32 beside experts in bfloat16.
template <c10::DeviceType device>
Tensor moe_mlp(const MoeMlpArguments& given) {
  const c10::impl::ExcludeDispatchKeyGuard no_autocast(
      at::autocast::get_autocast_dispatch_key_from_device_type(device));
  const auto dtype = at::autocast::get_autocast_dtype(device);
  const auto cast = [dtype](const auto& tensor) { return at::autocast::cached_cast(dtype, tensor, device); };
  MoeMlpArguments lower = given;
  lower.x = cast(given.x);
  lower.w1 = cast(given.w1);
  lower.b1 = cast(given.b1);
  lower.w2 = cast(given.w2);
  lower.b2 = cast(given.b2);
  return ops::moe_mlp(lower);
}

}  // namespace

TORCH_LIBRARY_IMPL(fmoe, AutocastCPU, library) {
  library.impl("grouped_linear", TORCH_FN(grouped_linear<c10::DeviceType::CPU>));
  library.impl("moe_mlp", TORCH_FN(moe_mlp_unpacked<moe_mlp<c10::DeviceType::CPU>>));
  library.impl("router_logits", TORCH_FN(router_logits<c10::DeviceType::CPU>));
}

TORCH_LIBRARY_IMPL(fmoe, AutocastCUDA, library) {
  library.impl("grouped_linear", TORCH_FN(grouped_linear<c10::DeviceType::CUDA>));
  library.impl("moe_mlp", TORCH_FN(moe_mlp_unpacked<moe_mlp<c10::DeviceType::CUDA>>));
  library.impl("router_logits", TORCH_FN(router_logits<c10::DeviceType::CUDA>));
}

}  // namespace fmoe
