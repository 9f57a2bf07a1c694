// The derivative of the scores of top-k gating with respect to the logits, of first order.
#include "ops.h"

#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include <string>

namespace fmoe {

namespace {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::variable_list;

struct TopkGateBackward : Function<TopkGateBackward> {
  static Tensor forward(
      AutogradContext*, const Tensor& grad, const Tensor& logits, const Tensor& top_idx, const Tensor& top_score,
      std::string score_function, bool normalize) {
    at::AutoDispatchBelowADInplaceOrView guard;
    return ops::topk_gate_backward(grad, logits, top_idx, top_score, score_function, normalize);
  }

  static variable_list backward(AutogradContext*, const variable_list&) {
    TORCH_CHECK_NOT_IMPLEMENTED(
        false, "fmoe::topk_gate has no second derivative; take topk, gather and softmax for derivatives of any order");
  }
};

struct TopkGate : Function<TopkGate> {
  static variable_list forward(
      AutogradContext* context, const Tensor& logits, const std::optional<Tensor>& selection_bias, int64_t k,
      std::string score_function, bool normalize) {
    at::AutoDispatchBelowADInplaceOrView guard;
    auto [top_idx, top_score] = ops::topk_gate(logits, selection_bias, k, score_function, normalize);
    context->mark_non_differentiable({top_idx});
    context->save_for_backward({logits, top_idx, top_score});
    context->saved_data["score_function"] = score_function;
    context->saved_data["normalize"] = normalize;
    return {top_idx, top_score};
  }

  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    const auto saved = context->get_saved_variables();
    variable_list result(5);
    if (context->needs_input_grad(0)) {
      result[0] = ops::topk_gate_backward(
          grads[1], saved[0], saved[1], saved[2], context->saved_data["score_function"].toStringRef(),
          context->saved_data["normalize"].toBool());
    }
    return result;
  }
};

std::tuple<Tensor, Tensor> topk_gate(
    const Tensor& logits, const std::optional<Tensor>& selection_bias, int64_t k, std::string_view score_function,
    bool normalize) {
  // The bias takes part in the choice alone.
  const auto bias = selection_bias && selection_bias->defined() ? std::make_optional(selection_bias->detach())
                                                                : std::nullopt;
  auto results = TopkGate::apply(logits, bias, k, std::string(score_function), normalize);
  return {results[0], results[1]};
}

Tensor topk_gate_backward(
    const Tensor& grad, const Tensor& logits, const Tensor& top_idx, const Tensor& top_score,
    std::string_view score_function, bool normalize) {
  return TopkGateBackward::apply(grad, logits, top_idx, top_score, std::string(score_function), normalize);
}

}  // namespace

TORCH_LIBRARY_IMPL(fmoe, Autograd, library) {
  library.impl("topk_gate", TORCH_FN(topk_gate));
  library.impl("topk_gate_backward", TORCH_FN(topk_gate_backward));
  // All results are indices or counts.
  for (const char* name : {"expert_count", "assign_pos", "limit_by_capacity", "prune_gate_by_capacity"}) {
    library.impl(name, torch::CppFunction::makeFallthrough());
  }
}

}  // namespace fmoe
