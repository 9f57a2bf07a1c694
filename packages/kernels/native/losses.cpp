// Losses that keep a router even, composed of ATen operators: one definition for every device, differentiable to any
// order, in float32 at least.
//
//   balance_loss     N · Σ_e f_e P_e, f the experts' shares of the slots, P their mean probabilities (Lepikhin et al.,
//                    GShard, arXiv 2006.16668; Fedus et al., Switch, arXiv 2101.03961): 1 for an even router
//   z_loss           mean over the tokens of (log Σ_e exp(logit_e))² (Zoph et al., ST-MoE, arXiv 2202.08906)
//   importance_loss  CV²(Σ_t score of e), CV² = var / mean² (Shazeer et al., arXiv 1701.06538, equation 7)
//   load_loss        CV²(Σ_t P(e among the top k if its noise were drawn anew)) (the same, appendix A)
#include "shape-text.h"

#include <ATen/ATen.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/library.h>

namespace fmoe {

namespace {

using at::Tensor;

// Added to the squared mean, as in the papers' own code.
constexpr double kLeastSquare = 1e-10;
// Below this a noise's deviation counts as none.
constexpr double kLeastDeviation = 1e-10;

Tensor at_least_float32(const char* op, const char* name, const Tensor& tensor, int64_t rank) {
  TORCH_CHECK_TYPE(tensor.is_floating_point(), op, ": ", name, " must have a floating-point dtype");
  TORCH_CHECK_VALUE(
      tensor.dim() == rank, op, ": ", name, " must have ", rank, " dimension(s), got shape ", shape_text(tensor));
  const auto dtype = tensor.scalar_type();
  return dtype == at::kHalf || dtype == at::kBFloat16 ? tensor.to(at::kFloat) : tensor;
}

// Expert ids, -1 or in [0, N). Those on a GPU are not read: one out of range counts for no expert there.
void check_ids(const char* op, const Tensor& top_idx, int64_t num_experts) {
  const auto dtype = top_idx.scalar_type();
  TORCH_CHECK_TYPE(
      dtype == at::kLong || dtype == at::kInt, op, ": top_idx must have dtype int64 or int32, got ",
      c10::getDtypeNames(dtype).first);
  if (top_idx.is_cpu()) {
    // Through the dispatcher, so that a trace, which has no ids, gets past it.
    static const auto count = c10::Dispatcher::singleton()
                                  .findSchemaOrThrow("fmoe::expert_count", "")
                                  .typed<Tensor(const Tensor&, int64_t)>();
    count.call(top_idx, num_experts);
  }
}

// var(v) / mean(v)² with the unbiased variance; 0 for a single element.
Tensor squared_variation(const Tensor& values) {
  if (values.sym_size(0) == 1) {
    return (values * 0).sum();
  }
  return values.var(0, true) / (values.mean().square() + kLeastSquare);
}

Tensor balance_loss(const Tensor& probability_, const Tensor& counts) {
  const char* op = "fmoe::balance_loss";
  const Tensor probability = at_least_float32(op, "probability", probability_, 2);
  TORCH_CHECK_VALUE(
      counts.dim() == 1 && counts.sym_size(0) == probability.sym_size(1), op,
      ": probability [T, N] and counts [N] must agree in N, got shapes ", shape_text(probability), " and ",
      shape_text(counts));
  if (probability.sym_size(0) == 0) {
    return probability.sum();
  }
  // Nothing routed: all shares are 0, not 0/0.
  const Tensor share = counts.to(probability.scalar_type()) / counts.sum().clamp_min(1);
  return (probability.mean(0) * share).sum() * static_cast<double>(counts.size(0));
}

Tensor z_loss(const Tensor& logits_) {
  const Tensor logits = at_least_float32("fmoe::z_loss", "logits", logits_, 2);
  const Tensor squares = logits.logsumexp(1).square();
  return logits.sym_size(0) == 0 ? squares.sum() : squares.mean();
}

Tensor importance_loss(const Tensor& top_idx, const Tensor& top_score_, int64_t num_experts) {
  const char* op = "fmoe::importance_loss";
  const Tensor top_score = at_least_float32(op, "top_score", top_score_, 2);
  TORCH_CHECK_VALUE(num_experts > 0, op, ": num_experts must be positive, got ", num_experts);
  TORCH_CHECK_VALUE(
      top_idx.sym_sizes() == top_score.sym_sizes(), op, ": top_idx and top_score [T, K] must agree in T and K, got shapes ",
      shape_text(top_idx), " and ", shape_text(top_score));
  check_ids(op, top_idx, num_experts);
  // A sum over masks instead of a scatter: the order is fixed on every device, and a dropped slot (-1) matches no expert.
  const Tensor experts = at::arange(num_experts, top_idx.options());
  Tensor importance = at::zeros({num_experts}, top_score.options());
  for (int64_t choice = 0; choice < top_idx.size(1); ++choice) {
    const Tensor chosen = top_idx.select(1, choice).unsqueeze(1) == experts;
    importance = importance + (chosen * top_score.select(1, choice).unsqueeze(1)).sum(0);
  }
  return squared_variation(importance);
}

Tensor load_loss(const Tensor& clean_, const Tensor& noisy_, const Tensor& deviation_, int64_t k) {
  const char* op = "fmoe::load_loss";
  const Tensor clean = at_least_float32(op, "clean", clean_, 2), noisy = at_least_float32(op, "noisy", noisy_, 2),
               deviation = at_least_float32(op, "deviation", deviation_, 2);
  TORCH_CHECK_VALUE(
      clean.sym_sizes() == noisy.sym_sizes() && clean.sym_sizes() == deviation.sym_sizes(), op,
      ": clean, noisy and deviation [T, N] must have one shape, got ", shape_text(clean), ", ", shape_text(noisy),
      " and ", shape_text(deviation));
  const int64_t experts = clean.size(1);
  TORCH_CHECK_VALUE(
      k > 0 && k <= experts, op, ": k must be at least 1 and at most the number of experts N, got ", k, " of ", experts);
  if (k == experts || clean.sym_size(0) == 0) {
    return (clean * 0).sum();  // every expert takes every token
  }
  // The noisy logit must pass the k-th largest of the others: the (k+1)-th of all where e was chosen, else the k-th.
  const Tensor best = std::get<0>(noisy.topk(k + 1, 1));
  const Tensor if_in = best.narrow(1, k, 1), if_out = best.narrow(1, k - 1, 1);
  const Tensor threshold = at::where(noisy > if_in, if_in, if_out);
  const Tensor distance = (clean - threshold) / deviation.clamp_min(kLeastDeviation);
  return squared_variation(at::special_ndtr(distance).sum(0));
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(fmoe, library) {
  library.def("balance_loss(Tensor probability, Tensor counts) -> Tensor", TORCH_FN(balance_loss));
  library.def("z_loss(Tensor logits) -> Tensor", TORCH_FN(z_loss));
  library.def(
      "importance_loss(Tensor top_idx, Tensor top_score, int num_experts) -> Tensor", TORCH_FN(importance_loss));
  library.def("load_loss(Tensor clean, Tensor noisy, Tensor deviation, int k) -> Tensor", TORCH_FN(load_loss));
}

}  // namespace fmoe
