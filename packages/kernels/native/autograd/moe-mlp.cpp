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

// Function::apply looks for variables among its arguments, not inside a struct: they are passed once more for it to see.
struct MoeMlpBackward : Function<MoeMlpBackward> {
  template <typename... Seen>
  static variable_list forward(AutogradContext*, const MoeMlpBackwardArguments& given, const Seen&...) {
    at::AutoDispatchBelowADInplaceOrView guard;
    auto [x_grad, w1_grad, b1_grad, w2_grad, b2_grad, score_grad] = ops::moe_mlp_backward(given);
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
  template <typename... Seen>
  static Tensor forward(AutogradContext* context, const MoeMlpArguments& of, const Seen&...) {
    at::AutoDispatchBelowADInplaceOrView guard;
    auto [y, pre_activation] = ops::moe_mlp_forward(of);
    context->save_for_backward(
        {of.x, pre_activation, of.w1, of.w2, or_undefined(of.b2), of.score, of.row_slot, of.slot_row, of.offsets});
    context->saved_data["activation"] = std::string(of.activation);
    context->saved_data["has_b1"] = or_undefined(of.b1).defined();
    return y;
  }

  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    const auto saved = context->get_saved_variables();
    const auto &x = saved[0], &pre_activation = saved[1], &w1 = saved[2], &w2 = saved[3], &b2 = saved[4];
    const bool has_b1 = context->saved_data["has_b1"].toBool(), has_b2 = b2.defined();
    // In the order of the variables; needs_input_grad counts only those that are there.
    size_t position = 0;
    std::array<bool, 6> wanted{};
    const std::array<bool, 6> present{true, true, has_b1, true, has_b2, true};
    for (size_t i = 0; i < wanted.size(); ++i) {
      wanted[i] = present[i] && context->needs_input_grad(position++);
    }
    const auto bias = has_b2 ? std::make_optional(b2) : std::nullopt;
    const auto [x_grad, w1_grad, b1_grad, w2_grad, b2_grad, score_grad] = ops::moe_mlp_backward(
        {grads[0], pre_activation,
         {x, w1, std::nullopt, w2, bias, saved[5], saved[6], saved[7], saved[8],
          context->saved_data["activation"].toStringRef()},
         wanted});
    const std::array<Tensor, 6> all{x_grad, w1_grad, b1_grad, w2_grad, b2_grad, score_grad};
    variable_list result(1 + all.size());  // the struct comes first
    for (size_t i = 0; i < all.size(); ++i) {
      if (wanted[i]) {
        result[1 + i] = all[i];
      }
    }
    return result;
  }
};

bool wants_grad(const MoeMlpArguments& of) {
  const auto wants = [](const Tensor& tensor) { return tensor.defined() && tensor.requires_grad(); };
  return at::GradMode::is_enabled() &&
         (wants(of.x) || wants(of.w1) || wants(or_undefined(of.b1)) || wants(of.w2) || wants(or_undefined(of.b2)) ||
          wants(of.score));
}

Tensor moe_mlp(const MoeMlpArguments& of) {
  if (!wants_grad(of)) {
    at::AutoDispatchBelowADInplaceOrView guard;
    return ops::moe_mlp(of);
  }
  return MoeMlp::apply(of, of.x, of.w1, of.b1, of.w2, of.b2, of.score);
}

std::tuple<Tensor, Tensor> moe_mlp_forward(const MoeMlpArguments& of) {
  TORCH_CHECK_NOT_IMPLEMENTED(
      !wants_grad(of),
      "fmoe::moe_mlp_forward is a part of fmoe::moe_mlp and has no derivative of its own; call fmoe::moe_mlp");
  at::AutoDispatchBelowADInplaceOrView guard;
  return ops::moe_mlp_forward(of);
}

MoeMlpGrads moe_mlp_backward(const MoeMlpBackwardArguments& given) {
  const auto& of = given.forward;
  const auto grads = MoeMlpBackward::apply(
      given, given.grad, of.x, given.pre_activation, of.w1, of.w2, of.b2, of.score);
  return {grads[0], grads[1], grads[2], grads[3], grads[4], grads[5]};
}

}  // namespace

TORCH_LIBRARY_IMPL(fmoe, Autograd, library) {
  library.impl("moe_mlp", TORCH_FN(moe_mlp_unpacked<moe_mlp>));
  library.impl("moe_mlp_forward", TORCH_FN(moe_mlp_unpacked<moe_mlp_forward>));
  library.impl("moe_mlp_backward", TORCH_FN(moe_mlp_backward_unpacked<moe_mlp_backward>));
}

}  // namespace fmoe
