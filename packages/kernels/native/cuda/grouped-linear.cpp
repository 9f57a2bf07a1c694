// One linear layer for each expert over rows grouped by expert.
#include "checks.h"
#include "cuda/products.h"

#include <ATen/ops/empty.h>
#include <torch/library.h>

#include <tuple>

namespace fmoe::cuda {

namespace {

Tensor grouped_linear(
    const Tensor& x, const Tensor& weight, const std::optional<Tensor>& bias, const Tensor& offsets) {
  check_grouped_linear(x, weight, bias, offsets);
  const c10::cuda::CUDAGuard guard(x.device());
  GroupOffsets groups(offsets, x.size(0));
  return product_forward(x.contiguous(), weight.contiguous(), contiguous(bias), groups, Padding::Zeros);
}

Tensor grouped_linear_input_grad(const Tensor& grad, const Tensor& weight, const Tensor& offsets) {
  check_grouped_linear_input_grad(grad, weight, offsets);
  const c10::cuda::CUDAGuard guard(grad.device());
  GroupOffsets groups(offsets, grad.size(0));
  return product_input_grad(grad.contiguous(), weight.contiguous(), groups, Padding::Zeros);
}

std::tuple<Tensor, Tensor> grouped_linear_weight_grad(
    const Tensor& grad, const Tensor& x, const Tensor& offsets, bool with_bias) {
  check_grouped_linear_weight_grad(grad, x, offsets);
  const c10::cuda::CUDAGuard guard(grad.device());
  GroupOffsets groups(offsets, x.size(0));
  const Tensor incoming = grad.contiguous();
  Tensor weight_grad = product_weight_grad(incoming, x.contiguous(), groups);
  return {weight_grad, with_bias ? column_sums(incoming, groups) : at::empty({0}, x.options())};
}

}  // namespace

TORCH_LIBRARY_IMPL(fmoe, CUDA, library) {
  library.impl("grouped_linear", TORCH_FN(grouped_linear));
  library.impl("grouped_linear_input_grad", TORCH_FN(grouped_linear_input_grad));
  library.impl("grouped_linear_weight_grad", TORCH_FN(grouped_linear_weight_grad));
}

}  // namespace fmoe::cuda
