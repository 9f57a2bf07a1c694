// combine adds up the expert outputs of each token, weighted by their scores.
#include "checks.h"
#include "cpu/parallel.h"
#include "cpu/row-kernels.h"
#include "cpu/slots.h"

#include <ATen/OpMathType.h>
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include <cstring>

namespace fmoe::cpu {

namespace {

// Scores may have a dtype of their own (float32 from the router beside bfloat16 rows).
Tensor as_factor(const Tensor& score, const Tensor& rows) {
  return score.to(at::toOpMathType(rows.scalar_type())).contiguous();
}

Tensor combine(const Tensor& rows, const Tensor& score, const Tensor& slot_row) {
  check_combine(rows, score, slot_row);
  const Tensor source = rows.contiguous(), factor = as_factor(score, rows), slots = as_indices(slot_row);
  const auto* row_of = slots.const_data_ptr<int64_t>();
  const int64_t token_count = slots.size(0), choices = slots.size(1), features = rows.size(1);
  check_slot_values("fmoe::combine", row_of, slots.numel(), rows.size(0));

  Tensor result = at::empty({token_count, features}, source.options());
  const WeightedSum task{source.scalar_type(), result.mutable_data_ptr(), source.const_data_ptr(),
                         factor.const_data_ptr(), row_of, choices, features};
  at::parallel_for(0, token_count, grain(choices * features), [&](int64_t first, int64_t last) {
    row_kernels().weighted_sum(task, first, last);
  });
  return result;
}

std::tuple<Tensor, Tensor> combine_backward(
    const Tensor& grad, const Tensor& rows, const Tensor& score, const Tensor& slot_row) {
  check_combine_backward(grad, rows, score, slot_row);
  const Tensor incoming = grad.contiguous(), source = rows.contiguous(), factor = as_factor(score, rows),
               slots = as_indices(slot_row);
  const auto* row_of = slots.const_data_ptr<int64_t>();
  const int64_t row_count = rows.size(0), token_count = slots.size(0), choices = slots.size(1),
                features = rows.size(1);
  const auto named = check_slot_values("fmoe::combine_backward", row_of, slots.numel(), row_count);

  Tensor rows_grad = at::empty({row_count, features}, source.options());
  Tensor factor_grad = at::empty({token_count, choices}, factor.options());
  const WeightedSumBackward task{
      source.scalar_type(), rows_grad.mutable_data_ptr(), factor_grad.mutable_data_ptr(), incoming.const_data_ptr(),
      source.const_data_ptr(), factor.const_data_ptr(), row_of, choices, features};
  at::parallel_for(0, token_count, grain(choices * features), [&](int64_t first, int64_t last) {
    row_kernels().weighted_sum_backward(task, first, last);
  });

  const int64_t row_bytes = features * source.element_size();
  auto* target = static_cast<char*>(rows_grad.mutable_data_ptr());
  for (int64_t row = 0; row < row_count; ++row) {
    if (!named[row]) {
      std::memset(target + row * row_bytes, 0, row_bytes);
    }
  }
  return {rows_grad, factor_grad.to(score.scalar_type())};
}

}  // namespace

TORCH_LIBRARY_IMPL(fmoe, CPU, library) {
  library.impl("combine", TORCH_FN(combine));
  library.impl("combine_backward", TORCH_FN(combine_backward));
}

}  // namespace fmoe::cpu
