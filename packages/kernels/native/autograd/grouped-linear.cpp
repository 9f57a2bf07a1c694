// Derivatives of the grouped linear. Three operators, each bilinear, are closed under differentiation; rows of
// expert e, the sums over rows run inside each expert:
//
//   grouped_linear(x, W, b)      y  = x Wᵉᵀ + bᵉ      dx = input_grad(g, W)    (dW, db) = weight_grad(g, x)
//   input_grad(g, W)             dx = g Wᵉ            dg = linear(a, W)         dW      = weight_grad(g, a)
//   weight_grad(g, x)            dW = gᵀ x, db = Σ g  dg = linear(x, A, c)      dx      = input_grad(g, A)
//
// where a, A, c are the gradients flowing into dx, dW, db.
#include "ops.h"

#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

namespace fmoe {

namespace {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::variable_list;

struct GroupedLinear : Function<GroupedLinear> {
  static Tensor forward(
      AutogradContext* context,
      const Tensor& x,
      const Tensor& weight,
      const std::optional<Tensor>& bias,
      const Tensor& offsets) {
    at::AutoDispatchBelowADInplaceOrView guard;
    context->save_for_backward({x, weight, offsets});
    context->saved_data["has_bias"] = bias.has_value() && bias->defined();
    return ops::grouped_linear(x, weight, bias, offsets);
  }

  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    const auto saved = context->get_saved_variables();
    const auto &x = saved[0], &weight = saved[1], &offsets = saved[2];
    // needs_input_grad counts tensors, so position 2 is the bias only where there is one.
    const bool bias_grad = context->saved_data["has_bias"].toBool() && context->needs_input_grad(2);
    variable_list result(4);
    if (context->needs_input_grad(0)) {
      result[0] = ops::grouped_linear_input_grad(grads[0], weight, offsets);
    }
    if (context->needs_input_grad(1) || bias_grad) {
      auto [weight_sum, bias_sum] = ops::grouped_linear_weight_grad(grads[0], x, offsets, bias_grad);
      result[1] = weight_sum;
      if (bias_grad) {
        result[2] = bias_sum;
      }
    }
    return result;
  }
};

struct InputGrad : Function<InputGrad> {
  static Tensor forward(
      AutogradContext* context, const Tensor& grad, const Tensor& weight, const Tensor& offsets) {
    at::AutoDispatchBelowADInplaceOrView guard;
    context->save_for_backward({grad, weight, offsets});
    return ops::grouped_linear_input_grad(grad, weight, offsets);
  }

  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    const auto saved = context->get_saved_variables();
    const auto &grad = saved[0], &weight = saved[1], &offsets = saved[2];
    variable_list result(3);
    if (context->needs_input_grad(0)) {
      result[0] = ops::grouped_linear(grads[0], weight, std::nullopt, offsets);
    }
    if (context->needs_input_grad(1)) {
      result[1] = std::get<0>(ops::grouped_linear_weight_grad(grad, grads[0], offsets, false));
    }
    return result;
  }
};

struct WeightGrad : Function<WeightGrad> {
  static variable_list forward(
      AutogradContext* context, const Tensor& grad, const Tensor& x, const Tensor& offsets, bool with_bias) {
    at::AutoDispatchBelowADInplaceOrView guard;
    context->save_for_backward({grad, x, offsets});
    context->saved_data["with_bias"] = with_bias;
    auto [weight_grad, bias_grad] = ops::grouped_linear_weight_grad(grad, x, offsets, with_bias);
    return {weight_grad, bias_grad};
  }

  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    const auto saved = context->get_saved_variables();
    const auto &grad = saved[0], &x = saved[1], &offsets = saved[2];
    variable_list result(4);
    if (context->needs_input_grad(0)) {
      const auto bias = context->saved_data["with_bias"].toBool() ? std::make_optional(grads[1]) : std::nullopt;
      result[0] = ops::grouped_linear(x, grads[0], bias, offsets);
    }
    if (context->needs_input_grad(1)) {
      result[1] = ops::grouped_linear_input_grad(grad, grads[0], offsets);
    }
    return result;
  }
};

Tensor grouped_linear(
    const Tensor& x, const Tensor& weight, const std::optional<Tensor>& bias, const Tensor& offsets) {
  return GroupedLinear::apply(x, weight, bias, offsets);
}

Tensor grouped_linear_input_grad(const Tensor& grad, const Tensor& weight, const Tensor& offsets) {
  return InputGrad::apply(grad, weight, offsets);
}

std::tuple<Tensor, Tensor> grouped_linear_weight_grad(
    const Tensor& grad, const Tensor& x, const Tensor& offsets, bool with_bias) {
  auto grads = WeightGrad::apply(grad, x, offsets, with_bias);
  return {grads[0], grads[1]};
}

}  // namespace

TORCH_LIBRARY_IMPL(fmoe, Autograd, library) {
  library.impl("grouped_linear", TORCH_FN(grouped_linear));
  library.impl("grouped_linear_input_grad", TORCH_FN(grouped_linear_input_grad));
  library.impl("grouped_linear_weight_grad", TORCH_FN(grouped_linear_weight_grad));
}

}  // namespace fmoe
