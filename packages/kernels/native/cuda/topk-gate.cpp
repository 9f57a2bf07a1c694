// Top-k gating.
#include "checks.h"
#include "cuda/tensors.h"
#include "score-function.h"

#include <ATen/ops/empty.h>
#include <torch/library.h>

#include <string_view>
#include <tuple>

namespace fmoe::cuda {

namespace {

static_assert(
    static_cast<int>(ScoreFunction::SoftmaxChosen) == static_cast<int>(fmoe::ScoreFunction::kSoftmaxChosen) &&
    static_cast<int>(ScoreFunction::Softmax) == static_cast<int>(fmoe::ScoreFunction::kSoftmax) &&
    static_cast<int>(ScoreFunction::Sigmoid) == static_cast<int>(fmoe::ScoreFunction::kSigmoid));

std::tuple<Tensor, Tensor> topk_gate(
    const Tensor& logits, const std::optional<Tensor>& selection_bias, int64_t k, std::string_view score_function,
    bool normalize) {
  check_topk_gate(logits, selection_bias, k, score_function);
  TORCH_CHECK_VALUE(
      logits.size(1) <= kMaximumExperts, "fmoe::topk_gate: the number of experts must be at most ", kMaximumExperts,
      " on CUDA, got ", logits.size(1));
  const c10::cuda::CUDAGuard guard(logits.device());
  const Tensor source = logits.contiguous();
  const bool biased = selection_bias.has_value() && selection_bias->defined();
  const Tensor bias = biased ? as_factor(*selection_bias, logits) : Tensor();
  const auto wide = logits.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  Tensor top_idx = at::empty({logits.size(0), k}, source.options().dtype(at::kLong));
  Tensor top_score = at::empty({logits.size(0), k}, source.options().dtype(wide));
  choose_experts(
      {dtype_of(logits), static_cast<ScoreFunction>(parse_score_function("fmoe::topk_gate", score_function)), normalize,
       source.const_data_ptr(), biased ? bias.const_data_ptr() : nullptr, top_idx.mutable_data_ptr<int64_t>(),
       top_score.mutable_data_ptr(), logits.size(0), static_cast<int>(logits.size(1)), static_cast<int>(k)},
      current_stream());
  return {top_idx, top_score};
}

Tensor topk_gate_backward(
    const Tensor& grad, const Tensor& logits, const Tensor& top_idx, const Tensor& top_score,
    std::string_view score_function, bool normalize) {
  check_topk_gate_backward(grad, logits, top_idx, top_score, score_function);
  const c10::cuda::CUDAGuard guard(logits.device());
  const Tensor source = logits.contiguous(), incoming = as_factor(grad, logits), scores = as_factor(top_score, logits),
               chosen = as_indices(top_idx);
  Tensor result = at::empty(logits.sizes(), source.options());
  choose_experts_backward(
      {dtype_of(logits),
       static_cast<ScoreFunction>(parse_score_function("fmoe::topk_gate_backward", score_function)), normalize,
       result.mutable_data_ptr(), incoming.const_data_ptr(), source.const_data_ptr(), indices(chosen),
       scores.const_data_ptr(), logits.size(0), static_cast<int>(logits.size(1)), static_cast<int>(top_idx.size(1))},
      current_stream());
  return result;
}

}  // namespace

TORCH_LIBRARY_IMPL(fmoe, CUDA, library) {
  library.impl("topk_gate", TORCH_FN(topk_gate));
  library.impl("topk_gate_backward", TORCH_FN(topk_gate_backward));
}

}  // namespace fmoe::cuda
