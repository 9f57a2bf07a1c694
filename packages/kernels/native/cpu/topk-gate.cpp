// Top-k gating: the choice of experts and their scores, in one pass over the logits of each token.
#include "checks.h"
#include "cpu/parallel.h"
#include "cpu/slots.h"
#include "score-function.h"

#include <ATen/Dispatch.h>
#include <ATen/OpMathType.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <torch/library.h>

#include <cmath>
#include <limits>
#include <tuple>
#include <vector>

namespace fmoe::cpu {

namespace {

// log(1 / (1 + exp(-x))) without overflow
template <typename T>
T log_sigmoid(T x) {
  return std::min(x, T(0)) - std::log1p(std::exp(-std::abs(x)));
}

template <typename T>
T sigmoid(T x) {
  return 1 / (1 + std::exp(-x));
}

// Keeps in best[0..k) the k largest keys, the largest first; of equal ones the earlier comes first.
template <typename T>
void select_largest(const T* key, int64_t count, int64_t k, int64_t* best) {
  int64_t kept = 0;
  for (int64_t expert = 0; expert < count; ++expert) {
    if (kept == k && !(key[expert] > key[best[k - 1]])) {
      continue;
    }
    int64_t place = kept < k ? kept++ : k - 1;
    for (; place > 0 && key[expert] > key[best[place - 1]]; --place) {
      best[place] = best[place - 1];
    }
    best[place] = expert;
  }
}

template <typename T>
T largest(const T* values, int64_t count) {
  T result = -std::numeric_limits<T>::infinity();
  for (int64_t i = 0; i < count; ++i) {
    result = std::max(result, values[i]);
  }
  return result;
}

// values[i] -> exp(values[i]) / Σ exp(values), zeros where all are -inf.
template <typename T>
void softmax(T* values, int64_t count) {
  const T maximum = largest(values, count);
  T total = 0;
  for (int64_t i = 0; i < count; ++i) {
    values[i] = std::isinf(maximum) ? T(0) : std::exp(values[i] - maximum);
    total += values[i];
  }
  for (int64_t i = 0; i < count; ++i) {
    values[i] = total > 0 ? values[i] / total : T(0);
  }
}

template <typename T>
struct Gate {
  ScoreFunction function;
  bool normalize;
  int64_t experts, choices;

  // Scores that add up to 1 are a softmax over the chosen: of the logits, or of the logarithms of their sigmoids.
  bool over_chosen() const { return normalize || function == ScoreFunction::kSoftmaxChosen; }

  // `probability` [N] is room for the token's probabilities.
  void choose(const T* logit, const T* bias, T* probability, int64_t* top_idx, T* top_score) const {
    const bool all = function == ScoreFunction::kSoftmax && (bias != nullptr || !normalize);
    if (all) {
      std::copy(logit, logit + experts, probability);
      softmax(probability, experts);
    }
    if (bias == nullptr) {
      select_largest(logit, experts, choices, top_idx);
    } else {
      std::vector<T> key(experts);
      for (int64_t expert = 0; expert < experts; ++expert) {
        const T value = function == ScoreFunction::kSoftmaxChosen ? logit[expert]
            : function == ScoreFunction::kSoftmax               ? probability[expert]
                                                                : sigmoid(logit[expert]);
        key[expert] = value + bias[expert];
      }
      select_largest(key.data(), experts, choices, top_idx);
    }
    for (int64_t choice = 0; choice < choices; ++choice) {
      const T chosen = logit[top_idx[choice]];
      if (over_chosen()) {
        top_score[choice] = function == ScoreFunction::kSigmoid ? log_sigmoid(chosen) : chosen;
      } else {
        top_score[choice] = all ? probability[top_idx[choice]] : sigmoid(chosen);
      }
    }
    if (over_chosen()) {
      softmax(top_score, choices);
    }
  }

  // `logit_grad` [N] holds zeros.
  void backward(const T* grad, const T* logit, const int64_t* top_idx, const T* top_score, T* logit_grad) const {
    T mean = 0;
    for (int64_t choice = 0; choice < choices; ++choice) {
      mean += grad[choice] * top_score[choice];
    }
    if (!over_chosen() && function == ScoreFunction::kSoftmax) {
      std::copy(logit, logit + experts, logit_grad);
      softmax(logit_grad, experts);
      for (int64_t expert = 0; expert < experts; ++expert) {
        logit_grad[expert] *= -mean;
      }
      for (int64_t choice = 0; choice < choices; ++choice) {
        logit_grad[top_idx[choice]] += top_score[choice] * grad[choice];
      }
      return;
    }
    for (int64_t choice = 0; choice < choices; ++choice) {
      const T score = top_score[choice];
      T value = score * (over_chosen() ? grad[choice] - mean : grad[choice]);
      if (function == ScoreFunction::kSigmoid) {
        value *= sigmoid(-logit[top_idx[choice]]);
      }
      logit_grad[top_idx[choice]] = value;
    }
  }
};

std::tuple<Tensor, Tensor> topk_gate(
    const Tensor& logits, const std::optional<Tensor>& selection_bias, int64_t k, std::string_view score_function,
    bool normalize) {
  check_topk_gate(logits, selection_bias, k, score_function);
  const auto wide = at::toOpMathType(logits.scalar_type());
  const Tensor source = logits.to(wide).contiguous();
  const bool biased = selection_bias && selection_bias->defined();
  const Tensor bias = biased ? selection_bias->to(wide).contiguous() : Tensor();
  const int64_t tokens = logits.size(0), experts = logits.size(1);
  Tensor top_idx = at::empty({tokens, k}, source.options().dtype(at::kLong));
  Tensor top_score = at::empty({tokens, k}, source.options());
  AT_DISPATCH_FLOATING_TYPES(wide, "topk_gate", [&] {
    const Gate<scalar_t> gate{parse_score_function("fmoe::topk_gate", score_function), normalize, experts, k};
    const auto* offset = biased ? bias.const_data_ptr<scalar_t>() : nullptr;
    if (offset != nullptr) {
      for (int64_t expert = 0; expert < experts; ++expert) {
        TORCH_CHECK_VALUE(
            std::isfinite(offset[expert]), "fmoe::topk_gate: selection_bias holds ", offset[expert], " at expert ",
            expert, ", expected finite numbers");
      }
    }
    at::parallel_for(0, tokens, grain(experts), [&](int64_t first, int64_t last) {
      std::vector<scalar_t> probability(experts);
      for (int64_t token = first; token < last; ++token) {
        const auto* logit = source.const_data_ptr<scalar_t>() + token * experts;
        for (int64_t expert = 0; expert < experts; ++expert) {
          // False for NaN as well.
          TORCH_CHECK_VALUE(
              logit[expert] < std::numeric_limits<scalar_t>::infinity(), "fmoe::topk_gate: logits hold ",
              logit[expert], " at token ", token, ", expert ", expert, ", expected finite numbers or -inf");
        }
        gate.choose(
            logit, offset, probability.data(), top_idx.mutable_data_ptr<int64_t>() + token * k,
            top_score.mutable_data_ptr<scalar_t>() + token * k);
      }
    });
  });
  return {top_idx, top_score};
}

Tensor topk_gate_backward(
    const Tensor& grad, const Tensor& logits, const Tensor& top_idx, const Tensor& top_score,
    std::string_view score_function, bool normalize) {
  check_topk_gate_backward(grad, logits, top_idx, top_score, score_function);
  const auto wide = at::toOpMathType(logits.scalar_type());
  const Tensor source = logits.to(wide).contiguous(), incoming = grad.to(wide).contiguous(),
               scores = top_score.to(wide).contiguous(), indices = as_indices(top_idx);
  const int64_t tokens = logits.size(0), experts = logits.size(1), k = top_idx.size(1);
  Tensor result = at::zeros({tokens, experts}, source.options());
  AT_DISPATCH_FLOATING_TYPES(wide, "topk_gate_backward", [&] {
    const Gate<scalar_t> gate{
        parse_score_function("fmoe::topk_gate_backward", score_function), normalize, experts, k};
    at::parallel_for(0, tokens, grain(experts), [&](int64_t first, int64_t last) {
      for (int64_t token = first; token < last; ++token) {
        const auto* chosen = indices.const_data_ptr<int64_t>() + token * k;
        for (int64_t choice = 0; choice < k; ++choice) {
          TORCH_CHECK_INDEX(
              chosen[choice] >= 0 && chosen[choice] < experts, "fmoe::topk_gate_backward: top_idx holds ",
              chosen[choice], " at token ", token, ", choice ", choice, ", expected an expert in [0, ", experts, ")");
        }
        gate.backward(
            incoming.const_data_ptr<scalar_t>() + token * k, source.const_data_ptr<scalar_t>() + token * experts,
            chosen, scores.const_data_ptr<scalar_t>() + token * k,
            result.mutable_data_ptr<scalar_t>() + token * experts);
      }
    });
  });
  return result.to(logits.scalar_type());
}

}  // namespace

TORCH_LIBRARY_IMPL(fmoe, CPU, library) {
  library.impl("topk_gate", TORCH_FN(topk_gate));
  library.impl("topk_gate_backward", TORCH_FN(topk_gate_backward));
}

}  // namespace fmoe::cpu
