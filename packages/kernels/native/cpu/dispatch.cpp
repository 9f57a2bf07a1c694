// dispatch copies token rows into expert order; its backward adds up the copies of each token.
#include "checks.h"
#include "cpu/parallel.h"
#include "cpu/row-kernels.h"
#include "cpu/slots.h"

#include <ATen/ops/empty.h>
#include <torch/library.h>

#include <cstring>

namespace fmoe::cpu {

namespace {

Tensor dispatch(const Tensor& x, const Tensor& row_slot, const Tensor& slot_row) {
  check_dispatch(x, row_slot, slot_row);
  const Tensor tokens = x.contiguous(), slots = as_indices(row_slot), rows = as_indices(slot_row);
  const auto* slot_of = slots.const_data_ptr<int64_t>();
  const int64_t row_count = slots.numel(), choices = rows.size(1);
  check_inverse("fmoe::dispatch", slot_of, row_count, rows.const_data_ptr<int64_t>(), rows.numel());

  Tensor result = at::empty({row_count, x.size(1)}, tokens.options());
  const int64_t row_bytes = x.size(1) * x.element_size();
  const auto* source = static_cast<const char*>(tokens.const_data_ptr());
  auto* target = static_cast<char*>(result.mutable_data_ptr());
  at::parallel_for(0, row_count, grain(x.size(1)), [&](int64_t first, int64_t last) {
    for (int64_t row = first; row < last; ++row) {
      if (slot_of[row] < 0) {
        std::memset(target + row * row_bytes, 0, row_bytes);
      } else {
        std::memcpy(target + row * row_bytes, source + slot_of[row] / choices * row_bytes, row_bytes);
      }
    }
  });
  return result;
}

Tensor dispatch_backward(const Tensor& grad, const Tensor& row_slot, const Tensor& slot_row) {
  check_dispatch_backward(grad, row_slot, slot_row);
  const Tensor incoming = grad.contiguous(), slots = as_indices(row_slot), rows = as_indices(slot_row);
  const int64_t token_count = rows.size(0), choices = rows.size(1), features = grad.size(1);
  check_inverse(
      "fmoe::dispatch_backward", slots.const_data_ptr<int64_t>(), slots.numel(), rows.const_data_ptr<int64_t>(),
      rows.numel());

  Tensor result = at::empty({token_count, features}, incoming.options());
  const WeightedSum task{
      incoming.scalar_type(), result.mutable_data_ptr(), incoming.const_data_ptr(), nullptr,
      rows.const_data_ptr<int64_t>(), choices, features};
  at::parallel_for(0, token_count, grain(choices * features), [&](int64_t first, int64_t last) {
    row_kernels().weighted_sum(task, first, last);
  });
  return result;
}

}  // namespace

TORCH_LIBRARY_IMPL(fmoe, CPU, library) {
  library.impl("dispatch", TORCH_FN(dispatch));
  library.impl("dispatch_backward", TORCH_FN(dispatch_backward));
}

}  // namespace fmoe::cpu
