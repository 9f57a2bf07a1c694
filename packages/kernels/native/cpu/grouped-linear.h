// The weight's and bias's gradients of a grouped linear layer, for operators that contain one.
#pragma once

#include "cpu/groups.h"

#include <ATen/core/Tensor.h>

namespace fmoe::cpu {

// weight_grad[e] = gradᵀ · x and bias_grad[e] = Σ grad over the rows of expert e. All are contiguous; an undefined sum is not
// computed.
void weight_grad_out(
    const Groups& groups, const Tensor& grad, const Tensor& x, const Tensor& weight_grad, const Tensor& bias_grad);

}  // namespace fmoe::cpu
