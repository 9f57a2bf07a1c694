// Derivatives of the fused expert MLP, of first order. Without gradients it goes straight to the inference form.
#include "ops.h"

#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include <string>

namespace fmoe {

namespace {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::variable_list;

Tensor or_undefined(const std::optional<Tensor>& tensor) {
  return tensor.has_value() ? *tensor : Tensor();
}

struct MoeMlpBackward : Function<MoeMlpBackward> {
  static variable_list forward(
      AutogradContext*, const Tensor& grad, const Tensor& x, const Tensor& pre_activation, const Tensor& w1,
      const Tensor& w2, const std::optional<Tensor>& b2, const Tensor& score, const Tensor& row_slot,
      const Tensor& slot_row, const Tensor& offsets, std::string activation, std::array<bool, 6> output_mask) {
    at::AutoDispatchBelowADInplaceOrView guard;
    auto [x_grad, w1_grad, b1_grad, w2_grad, b2_grad, score_grad] = ops::moe_mlp_backward(
        grad, x, pre_activation, w1, w2, b2, score, row_slot, slot_row, offsets, activation, output_mask);
    return {x_grad, w1_grad, b1_grad, w2_grad, b2_grad, score_grad};
  }

  static variable_list backward(AutogradContext*, const variable_list&) {
    TORCH_CHECK_NOT_IMPLEMENTED(
        false,
        "fmoe::moe_mlp has no second derivative; compose dispatch, grouped_linear and combine, which have derivatives "
        "of any order");
  }
};

struct MoeMlp : Function<MoeMlp> {
  static Tensor forward(
      AutogradContext* context, const Tensor& x, const Tensor& w1, const std::optional<Tensor>& b1,
      const Tensor& w2, const std::optional<Tensor>& b2, const Tensor& score, const Tensor& row_slot,
      const Tensor& slot_row, const Tensor& offsets, std::string activation) {
    at::AutoDispatchBelowADInplaceOrView guard;
    auto [y, pre_activation] =
        ops::moe_mlp_forward(x, w1, b1, w2, b2, score, row_slot, slot_row, offsets, activation);
    context->save_for_backward(
        {x, pre_activation, w1, w2, or_undefined(b2), score, row_slot, slot_row, offsets});
    context->saved_data["activation"] = activation;
    context->saved_data["has_b1"] = or_undefined(b1).defined();
    return y;
  }

  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    const auto saved = context->get_saved_variables();
    const auto &x = saved[0], &pre_activation = saved[1], &w1 = saved[2], &w2 = saved[3], &b2 = saved[4];
    const bool has_b1 = context->saved_data["has_b1"].toBool(), has_b2 = b2.defined();
    // Positions of the arguments x, w1, b1, w2, b2, score; needs_input_grad counts only those that are there.
    size_t position = 0;
    std::array<bool, 6> mask{};
    const std::array<bool, 6> present{true, true, has_b1, true, has_b2, true};
    for (size_t i = 0; i < mask.size(); ++i) {
      mask[i] = present[i] && context->needs_input_grad(position++);
    }
    const auto bias = has_b2 ? std::make_optional(b2) : std::nullopt;
    const auto [x_grad, w1_grad, b1_grad, w2_grad, b2_grad, score_grad] = ops::moe_mlp_backward(
        grads[0], x, pre_activation, w1, w2, bias, saved[5], saved[6], saved[7], saved[8],
        context->saved_data["activation"].toStringRef(), mask);
    const std::array<Tensor, 6> all{x_grad, w1_grad, b1_grad, w2_grad, b2_grad, score_grad};
    variable_list result(10);
    for (size_t i = 0; i < mask.size(); ++i) {
      if (mask[i]) {
        result[i] = all[i];
      }
    }
    return result;
  }
};

bool wants_grad(std::initializer_list<Tensor> inputs) {
  if (!at::GradMode::is_enabled()) {
    return false;
  }
  for (const auto& input : inputs) {
    if (input.defined() && input.requires_grad()) {
      return true;
    }
  }
  return false;
}

Tensor moe_mlp(
    const Tensor& x, const Tensor& w1, const std::optional<Tensor>& b1, const Tensor& w2,
    const std::optional<Tensor>& b2, const Tensor& score, const Tensor& row_slot, const Tensor& slot_row,
    const Tensor& offsets, std::string_view activation) {
  if (!wants_grad({x, w1, or_undefined(b1), w2, or_undefined(b2), score})) {
    at::AutoDispatchBelowADInplaceOrView guard;
    return ops::moe_mlp(x, w1, b1, w2, b2, score, row_slot, slot_row, offsets, activation);
  }
  return MoeMlp::apply(
      x, w1, b1, w2, b2, score, row_slot, slot_row, offsets, std::string(activation));
}

std::tuple<Tensor, Tensor> moe_mlp_forward(
    const Tensor& x, const Tensor& w1, const std::optional<Tensor>& b1, const Tensor& w2,
    const std::optional<Tensor>& b2, const Tensor& score, const Tensor& row_slot, const Tensor& slot_row,
    const Tensor& offsets, std::string_view activation) {
  TORCH_CHECK_NOT_IMPLEMENTED(
      !wants_grad({x, w1, or_undefined(b1), w2, or_undefined(b2), score}),
      "fmoe::moe_mlp_forward is a part of fmoe::moe_mlp and has no derivative of its own; call fmoe::moe_mlp");
  at::AutoDispatchBelowADInplaceOrView guard;
  return ops::moe_mlp_forward(x, w1, b1, w2, b2, score, row_slot, slot_row, offsets, activation);
}

ops::MoeMlpGrads moe_mlp_backward(
    const Tensor& grad, const Tensor& x, const Tensor& pre_activation, const Tensor& w1, const Tensor& w2,
    const std::optional<Tensor>& b2, const Tensor& score, const Tensor& row_slot, const Tensor& slot_row,
    const Tensor& offsets, std::string_view activation, std::array<bool, 6> output_mask) {
  const auto grads = MoeMlpBackward::apply(
      grad, x, pre_activation, w1, w2, b2, score, row_slot, slot_row, offsets, std::string(activation),
      output_mask);
  return {grads[0], grads[1], grads[2], grads[3], grads[4], grads[5]};
}

}  // namespace

TORCH_LIBRARY_IMPL(fmoe, Autograd, library) {
  library.impl("moe_mlp", TORCH_FN(moe_mlp));
  library.impl("moe_mlp_forward", TORCH_FN(moe_mlp_forward));
  library.impl("moe_mlp_backward", TORCH_FN(moe_mlp_backward));
}

}  // namespace fmoe
