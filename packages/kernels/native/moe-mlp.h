// The arguments of the expert MLP, which its operators, checks and kernels hand on together.
#pragma once

#include <ATen/core/Tensor.h>

#include <array>
#include <optional>
#include <string_view>
#include <tuple>

namespace fmoe {

struct MoeMlpArguments {
  at::Tensor x;                  // [T, D]
  at::Tensor w1;                 // [E, H, D], gated [E, 2H, D]
  std::optional<at::Tensor> b1;  // [E, H], gated [E, 2H]
  at::Tensor w2;                 // [E, D, H]
  std::optional<at::Tensor> b2;  // [E, D]
  at::Tensor score;              // [T, K]
  at::Tensor row_slot;           // [R]
  at::Tensor slot_row;           // [T, K]
  at::Tensor offsets;            // [E + 1]
  std::string_view activation;
};

struct MoeMlpBackwardArguments {
  at::Tensor grad;            // [T, D]
  at::Tensor pre_activation;  // [R, H], gated [R, 2H]
  MoeMlpArguments forward;             // without b1, which no gradient depends on
  // Which gradients are wanted, in the order of the results; an unwanted one is a tensor of shape [0].
  std::array<bool, 6> wanted;
};

// Gradients of x, w1, b1, w2, b2 and score.
using MoeMlpGrads = std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor>;

// The dispatcher passes arguments one by one, as the schema lists them: these make such a function of one that takes a
// struct. They are what is registered, and their types are those of the schemas.
template <auto kFunction>
auto moe_mlp_unpacked(
    const at::Tensor& x, const at::Tensor& w1, const std::optional<at::Tensor>& b1, const at::Tensor& w2,
    const std::optional<at::Tensor>& b2, const at::Tensor& score, const at::Tensor& row_slot,
    const at::Tensor& slot_row, const at::Tensor& offsets, std::string_view activation) {
  return kFunction(MoeMlpArguments{x, w1, b1, w2, b2, score, row_slot, slot_row, offsets, activation});
}

template <auto kFunction>
auto moe_mlp_backward_unpacked(
    const at::Tensor& grad, const at::Tensor& x, const at::Tensor& pre_activation, const at::Tensor& w1,
    const at::Tensor& w2, const std::optional<at::Tensor>& b2, const at::Tensor& score, const at::Tensor& row_slot,
    const at::Tensor& slot_row, const at::Tensor& offsets, std::string_view activation, std::array<bool, 6> wanted) {
  return kFunction(MoeMlpBackwardArguments{
      grad, pre_activation, {x, w1, std::nullopt, w2, b2, score, row_slot, slot_row, offsets, activation}, wanted});
}

}  // namespace fmoe
