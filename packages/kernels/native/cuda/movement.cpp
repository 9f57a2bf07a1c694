// dispatch and combine.
#include "checks.h"
#include "cuda/tensors.h"

#include <ATen/ops/empty.h>
#include <torch/library.h>

#include <tuple>

namespace fmoe::cuda {

namespace {

Tensor dispatch(const Tensor& x, const Tensor& row_slot, const Tensor& slot_row) {
  check_dispatch(x, row_slot, slot_row);
  const c10::cuda::CUDAGuard guard(x.device());
  const Tensor tokens = x.contiguous(), slots = as_indices(row_slot), rows = as_indices(slot_row);
  Tensor result = at::empty({slots.size(0), x.size(1)}, tokens.options());
  gather(
      {dtype_of(x), result.mutable_data_ptr(), tokens.const_data_ptr(), indices(slots), indices(rows), slots.size(0),
       x.size(0), rows.size(1), x.size(1)},
      current_stream());
  return result;
}

Tensor dispatch_backward(const Tensor& grad, const Tensor& row_slot, const Tensor& slot_row) {
  check_dispatch_backward(grad, row_slot, slot_row);
  const c10::cuda::CUDAGuard guard(grad.device());
  const Tensor incoming = grad.contiguous(), rows = as_indices(slot_row);
  Tensor result = at::empty({rows.size(0), grad.size(1)}, incoming.options());
  weighted_sum(
      {dtype_of(grad), result.mutable_data_ptr(), incoming.const_data_ptr(), nullptr, indices(rows), grad.size(0),
       rows.size(0), rows.size(1), grad.size(1)},
      current_stream());
  return result;
}

Tensor combine(const Tensor& rows, const Tensor& score, const Tensor& slot_row) {
  check_combine(rows, score, slot_row);
  const c10::cuda::CUDAGuard guard(rows.device());
  const Tensor source = rows.contiguous(), factor = as_factor(score, rows), slots = as_indices(slot_row);
  Tensor result = at::empty({slots.size(0), rows.size(1)}, source.options());
  weighted_sum(
      {dtype_of(rows), result.mutable_data_ptr(), source.const_data_ptr(), factor.const_data_ptr(), indices(slots),
       rows.size(0), slots.size(0), slots.size(1), rows.size(1)},
      current_stream());
  return result;
}

std::tuple<Tensor, Tensor> combine_backward(
    const Tensor& grad, const Tensor& rows, const Tensor& score, const Tensor& slot_row) {
  check_combine_backward(grad, rows, score, slot_row);
  const c10::cuda::CUDAGuard guard(rows.device());
  const Tensor incoming = grad.contiguous(), source = rows.contiguous(), factor = as_factor(score, rows),
               slots = as_indices(slot_row);
  Tensor rows_grad = at::empty(rows.sizes(), source.options());
  Tensor factor_grad = at::empty(score.sizes(), factor.options());
  const Tensor named = at::empty({rows.size(0)}, source.options().dtype(at::kInt));
  weighted_sum_backward(
      {dtype_of(rows), rows_grad.mutable_data_ptr(), factor_grad.mutable_data_ptr(), incoming.const_data_ptr(),
       source.const_data_ptr(), factor.const_data_ptr(), indices(slots), named.mutable_data_ptr<int32_t>(),
       rows.size(0), slots.size(0), slots.size(1), rows.size(1)},
      current_stream());
  return {rows_grad, factor_grad.to(score.scalar_type())};
}

}  // namespace

TORCH_LIBRARY_IMPL(fmoe, CUDA, library) {
  library.impl("dispatch", TORCH_FN(dispatch));
  library.impl("dispatch_backward", TORCH_FN(dispatch_backward));
  library.impl("combine", TORCH_FN(combine));
  library.impl("combine_backward", TORCH_FN(combine_backward));
}

}  // namespace fmoe::cuda
