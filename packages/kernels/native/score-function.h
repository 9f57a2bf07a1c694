// How the scores of a top-k gate are made from logits, by name.
#pragma once

#include <c10/util/Exception.h>

#include <cstdint>
#include <string_view>

namespace fmoe {

enum class ScoreFunction : int32_t { kSoftmaxChosen, kSoftmax, kSigmoid };

inline ScoreFunction parse_score_function(const char* op, std::string_view name) {
  if (name == "softmax_chosen") {
    return ScoreFunction::kSoftmaxChosen;
  }
  if (name == "softmax") {
    return ScoreFunction::kSoftmax;
  }
  TORCH_CHECK_VALUE(
      name == "sigmoid", op, ": score_function must be one of softmax_chosen, softmax, sigmoid, got '", name, "'");
  return ScoreFunction::kSigmoid;
}

}  // namespace fmoe
