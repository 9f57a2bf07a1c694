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

// Scores keep their dtype: a router in float32 beside experts in bfloat16.
template <c10::DeviceType device>
Tensor moe_mlp(
    const Tensor& x, const Tensor& w1, const std::optional<Tensor>& b1, const Tensor& w2,
    const std::optional<Tensor>& b2, const Tensor& score, const Tensor& row_slot, const Tensor& slot_row,
    const Tensor& offsets, std::string_view activation) {
  const c10::impl::ExcludeDispatchKeyGuard no_autocast(
      at::autocast::get_autocast_dispatch_key_from_device_type(device));
  const auto dtype = at::autocast::get_autocast_dtype(device);
  const auto cast = [dtype](const auto& tensor) { return at::autocast::cached_cast(dtype, tensor, device); };
  return ops::moe_mlp(
      cast(x), cast(w1), cast(b1), cast(w2), cast(b2), score, row_slot, slot_row, offsets, activation);
}

}  // namespace

TORCH_LIBRARY_IMPL(fmoe, AutocastCPU, library) {
  library.impl("grouped_linear", TORCH_FN(grouped_linear<c10::DeviceType::CPU>));
  library.impl("moe_mlp", TORCH_FN(moe_mlp<c10::DeviceType::CPU>));
}

TORCH_LIBRARY_IMPL(fmoe, AutocastCUDA, library) {
  library.impl("grouped_linear", TORCH_FN(grouped_linear<c10::DeviceType::CUDA>));
  library.impl("moe_mlp", TORCH_FN(moe_mlp<c10::DeviceType::CUDA>));
}

}  // namespace fmoe
