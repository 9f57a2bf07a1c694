// The operators of the fmoe library, called through libtorch's dispatcher.
//
// Shape letters: T tokens, K choices a token (top-k), N experts of the route, E experts held here, R rows (token
// copies) grouped by expert, D features of a token.
//
// A slot is one (token, choice) pair and is numbered t*K + j. `row_slot` [R] maps a row to its slot, `slot_row`
// [T, K] is the inverse; -1 means "no such": a padding row, a dropped slot.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <tuple>

namespace fmoe::ops {

using at::Tensor;

std::tuple<Tensor, Tensor, Tensor, Tensor> route_plan(const Tensor& top_idx, int64_t num_experts);

Tensor dispatch(const Tensor& x, const Tensor& row_slot, const Tensor& slot_row);
Tensor dispatch_backward(const Tensor& grad, const Tensor& row_slot, const Tensor& slot_row);

Tensor grouped_linear(
    const Tensor& x, const Tensor& weight, const std::optional<Tensor>& bias, const Tensor& offsets);
Tensor grouped_linear_input_grad(const Tensor& grad, const Tensor& weight, const Tensor& offsets);
std::tuple<Tensor, Tensor> grouped_linear_weight_grad(
    const Tensor& grad, const Tensor& x, const Tensor& offsets, bool with_bias);

Tensor combine(const Tensor& rows, const Tensor& score, const Tensor& slot_row);
std::tuple<Tensor, Tensor> combine_backward(
    const Tensor& grad, const Tensor& rows, const Tensor& score, const Tensor& slot_row);

}  // namespace fmoe::ops
