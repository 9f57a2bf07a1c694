// The operators of the fmoe library, called through libtorch's dispatcher.
//
// Shape letters: T tokens, K choices a token (top-k), N experts of the route, E experts held here, R rows (token
// copies) grouped by expert, D features of a token, H hidden width of an expert.
//
// A slot is one (token, choice) pair and is numbered t*K + j. `row_slot` [R] maps a row to its slot, `slot_row`
// [T, K] is the inverse; -1 means "no such": a padding row, a dropped slot.
#pragma once

#include "moe-mlp.h"

#include <ATen/core/Tensor.h>

#include <optional>
#include <string_view>
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

// x [T, D], weight [N, D], bias [N] -> logits [T, N] in float32 (float64 for float64).
Tensor router_logits(const Tensor& x, const Tensor& weight, const std::optional<Tensor>& bias);

// The k experts of each token and their scores [T, K] (float32 for half-precision logits), best first.
//
// The score function f is "softmax_chosen" (softmax over the k chosen logits), "softmax" (over all N) or "sigmoid".
// Without a selection bias the k largest logits are chosen; with one the k largest f(logits) + selection_bias, where f
// of "softmax_chosen" is the logit itself. Of equal ones the lower expert id comes first. `normalize` divides the k
// scores by their sum. An expert with logit -inf scores 0.
std::tuple<Tensor, Tensor> topk_gate(
    const Tensor& logits,
    const std::optional<Tensor>& selection_bias,
    int64_t k,
    std::string_view score_function,
    bool normalize);
Tensor topk_gate_backward(
    const Tensor& grad,
    const Tensor& logits,
    const Tensor& top_idx,
    const Tensor& top_score,
    std::string_view score_function,
    bool normalize);

// The fused expert MLP with dispatch and combine: y[t] = Σ_j score[t, j] · (W2ᵉ act(W1ᵉ x[t] + b1ᵉ) + b2ᵉ).
//
// `activation`: "gelu", "gelu_tanh", "relu", "silu" with w1 [E, H, D]; "swiglu", "geglu", "reglu" with w1 [E, 2H, D],
// whose first H rows are the gate and last H rows the linear part: act(p) = silu(p[:H]) · p[H:], and so on (geglu with
// the erf form of GELU). w2 [E, D, H]. `score` may have a dtype of its own. pre_activation [R, H or 2H] = W1 x + b1 in
// the dtype of x, zeros in padding rows.
Tensor moe_mlp(const MoeMlpArguments& arguments);
// y and pre_activation.
std::tuple<Tensor, Tensor> moe_mlp_forward(const MoeMlpArguments& arguments);
MoeMlpGrads moe_mlp_backward(const MoeMlpBackwardArguments& arguments);

}  // namespace fmoe::ops
