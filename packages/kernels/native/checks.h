// Argument checks that need no look at the data: dtypes, devices and shapes, the same for every device.
//
// A wrong dtype raises a TypeError; a wrong shape, device or number a ValueError. Values (ids and offsets out of
// range) are checked by the kernels, which raise an IndexError.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>

namespace fmoe {

using at::Tensor;

void check_route_plan(const Tensor& top_idx, int64_t num_experts);
void check_dispatch(const Tensor& x, const Tensor& row_slot, const Tensor& slot_row);
void check_dispatch_backward(const Tensor& grad, const Tensor& row_slot, const Tensor& slot_row);
void check_grouped_linear(
    const Tensor& x, const Tensor& weight, const std::optional<Tensor>& bias, const Tensor& offsets);
void check_grouped_linear_input_grad(const Tensor& grad, const Tensor& weight, const Tensor& offsets);
void check_grouped_linear_weight_grad(const Tensor& grad, const Tensor& x, const Tensor& offsets);
void check_combine(const Tensor& rows, const Tensor& score, const Tensor& slot_row);
void check_combine_backward(
    const Tensor& grad, const Tensor& rows, const Tensor& score, const Tensor& slot_row);

}  // namespace fmoe
