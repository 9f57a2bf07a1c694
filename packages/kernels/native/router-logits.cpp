// The logits of a router: logits[t] = W x[t] + b, accumulated and given in float32 (float64 for float64).
//
// A copy of x in float32 would cost more memory and time than the product, so bfloat16 is read as it is on a GPU: products of
// two bfloat16 are exact in float32. Elsewhere x is converted, and again in the backward rather than kept.
#include "checks.h"
#include "ops.h"

#include <ATen/OpMathType.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/sub.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include <tuple>

namespace fmoe {

namespace {

using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::variable_list;

bool reads_bfloat16(const Tensor& x, const Tensor& weight) {
  return x.is_cuda() && x.scalar_type() == at::kBFloat16 && weight.scalar_type() == at::kBFloat16;
}

bool is_given(const std::optional<Tensor>& tensor) {
  return tensor.has_value() && tensor->defined();
}

Tensor router_logits(const Tensor& x, const Tensor& weight, const std::optional<Tensor>& bias) {
  check_router_logits(x, weight, bias);
  const auto wide = at::toOpMathType(x.scalar_type());
  const auto wide_bias = is_given(bias) ? std::make_optional(bias->to(wide)) : std::nullopt;
  if (reads_bfloat16(x, weight)) {
    Tensor logits = at::mm(x, weight.t(), wide);
    return wide_bias ? logits.add_(*wide_bias) : logits;
  }
  return at::linear(x.to(wide), weight.to(wide), wide_bias);
}

// grad as the sum of two bfloat16, side by side [T, 2N]: 16 bits of its significand.
Tensor split(const Tensor& grad) {
  const auto experts = grad.size(1);
  Tensor halves = at::empty({grad.size(0), 2 * experts}, grad.options().dtype(at::kBFloat16));
  Tensor high = halves.narrow(1, 0, experts), low = halves.narrow(1, experts, experts);
  high.copy_(grad);
  at::sub_out(low, grad, high);
  return halves;
}

// The gradients of x and of the weight, undefined where not wanted.
std::tuple<Tensor, Tensor> products_of_grad(
    const Tensor& grad, const Tensor& x, const Tensor& weight, bool want_x, bool want_weight) {
  Tensor x_grad, weight_grad;
  // A second derivative needs steps that libtorch knows the derivative of.
  if (reads_bfloat16(x, weight) && !at::GradMode::is_enabled()) {
    const Tensor halves = split(grad);
    if (want_x) x_grad = at::mm(halves, at::cat({weight, weight}));
    if (want_weight) {
      const auto experts = weight.size(0);
      const Tensor both = at::mm(halves.t(), x, grad.scalar_type());
      weight_grad = both.narrow(0, 0, experts).add(both.narrow(0, experts, experts)).to(weight.scalar_type());
    }
    return {x_grad, weight_grad};
  }
  const auto wide = grad.scalar_type();
  if (want_x) x_grad = at::mm(grad, weight.to(wide)).to(x.scalar_type());
  if (want_weight) weight_grad = at::mm(grad.t(), x.to(wide)).to(weight.scalar_type());
  return {x_grad, weight_grad};
}

struct RouterLogits : Function<RouterLogits> {
  static Tensor forward(
      AutogradContext* context, const Tensor& x, const Tensor& weight, const std::optional<Tensor>& bias) {
    at::AutoDispatchBelowADInplaceOrView guard;
    context->save_for_backward({x, weight});
    if (is_given(bias)) context->saved_data["bias_dtype"] = bias->scalar_type();
    return ops::router_logits(x, weight, bias);
  }

  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    const auto saved = context->get_saved_variables();
    const auto [x_grad, weight_grad] = products_of_grad(
        grads[0], saved[0], saved[1], context->needs_input_grad(0), context->needs_input_grad(1));
    Tensor bias_grad;
    const auto bias_dtype = context->saved_data.find("bias_dtype");
    if (bias_dtype != context->saved_data.end() && context->needs_input_grad(2)) {
      bias_grad = grads[0].sum(0).to(bias_dtype->second.toScalarType());
    }
    return {x_grad, weight_grad, bias_grad};
  }
};

Tensor router_logits_with_grad(const Tensor& x, const Tensor& weight, const std::optional<Tensor>& bias) {
  return RouterLogits::apply(x, weight, bias);
}

}  // namespace

TORCH_LIBRARY_IMPL(fmoe, CompositeExplicitAutograd, library) {
  library.impl("router_logits", TORCH_FN(router_logits));
}

TORCH_LIBRARY_IMPL(fmoe, Autograd, library) {
  library.impl("router_logits", TORCH_FN(router_logits_with_grad));
}

}  // namespace fmoe
