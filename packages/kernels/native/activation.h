// The activations of the fused expert MLP, by name.
#pragma once

#include <c10/util/Exception.h>

#include <array>
#include <cstdint>
#include <string_view>
#include <utility>

namespace fmoe {

enum class Activation : int32_t { kGelu, kGeluTanh, kRelu, kSilu, kSwiglu, kGeglu, kReglu };

// Gated activations act on the first half of a row and multiply it by the second.
inline bool is_gated(Activation activation) {
  return activation == Activation::kSwiglu || activation == Activation::kGeglu || activation == Activation::kReglu;
}

inline Activation parse_activation(const char* op, std::string_view name) {
  constexpr std::array<std::pair<std::string_view, Activation>, 7> kNames{{
      {"gelu", Activation::kGelu},
      {"gelu_tanh", Activation::kGeluTanh},
      {"relu", Activation::kRelu},
      {"silu", Activation::kSilu},
      {"swiglu", Activation::kSwiglu},
      {"geglu", Activation::kGeglu},
      {"reglu", Activation::kReglu},
  }};
  for (const auto& [known, activation] : kNames) {
    if (known == name) {
      return activation;
    }
  }
  TORCH_CHECK_VALUE(
      false, op, ": activation must be one of gelu, gelu_tanh, relu, silu, swiglu, geglu, reglu, got '", name, "'");
}

}  // namespace fmoe
