// The weight's and bias's gradients of a grouped linear layer, for operators that contain one.
#pragma once

#include <ATen/core/Tensor.h>

#include <tuple>

namespace fmoe::cpu {

using at::Tensor;

std::tuple<Tensor, Tensor> grouped_linear_weight_grad(
    const Tensor& grad, const Tensor& x, const Tensor& offsets, bool with_bias);

}  // namespace fmoe::cpu
