// Argument checks that need no look at the data: dtypes, devices and shapes, the same for every device.
//
// A wrong dtype raises a TypeError; a wrong shape, device or number a ValueError. Values (ids and offsets out of
// range) are checked by the kernels, which raise an IndexError.
#pragma once

#include "moe-mlp.h"

#include <ATen/core/Tensor.h>

#include <optional>
#include <string_view>

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

void check_router_logits(const Tensor& x, const Tensor& weight, const std::optional<Tensor>& bias);
void check_topk_gate(
    const Tensor& logits, const std::optional<Tensor>& selection_bias, int64_t k, std::string_view score_function);
void check_topk_gate_backward(
    const Tensor& grad,
    const Tensor& logits,
    const Tensor& top_idx,
    const Tensor& top_score,
    std::string_view score_function);

void check_expert_count(const Tensor& top_idx, int64_t num_experts);
void check_assign_pos(const Tensor& cum_count, const Tensor& top_idx);
void check_limit_by_capacity(const Tensor& expert_count, const Tensor& capacity);
void check_prune_gate_by_capacity(const Tensor& top_idx, const Tensor& budget);

void check_moe_mlp(const char* op, const MoeMlpArguments& arguments);
void check_moe_mlp_backward(const MoeMlpBackwardArguments& arguments);

}  // namespace fmoe
