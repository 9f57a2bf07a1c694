// Between libtorch's tensors and the launchers.
#pragma once

#include "cuda/kernels.h"

#include <ATen/core/Tensor.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include <optional>

namespace fmoe::cuda {

using at::Tensor;

// The checks have let these four through.
inline Dtype dtype_of(const Tensor& tensor) {
  switch (tensor.scalar_type()) {
    case at::kDouble:
      return Dtype::Float64;
    case at::kHalf:
      return Dtype::Float16;
    case at::kBFloat16:
      return Dtype::BFloat16;
    default:
      return Dtype::Float32;
  }
}

// int32 or any strides -> contiguous int64; no copy where it is that already.
inline Tensor as_indices(const Tensor& tensor) {
  return tensor.to(at::kLong).contiguous();
}

// Scores may have a dtype of their own; the kernels take the accumulation type of the rows.
inline Tensor as_factor(const Tensor& score, const Tensor& rows) {
  return score.to(rows.scalar_type() == at::kDouble ? at::kDouble : at::kFloat).contiguous();
}

inline const int64_t* indices(const Tensor& tensor) {
  return tensor.const_data_ptr<int64_t>();
}

// Nothing for a tensor that is not there.
inline std::optional<Tensor> contiguous(const std::optional<Tensor>& tensor) {
  return tensor.has_value() && tensor->defined() ? std::make_optional(tensor->contiguous()) : std::nullopt;
}

// Null for a tensor that is not there.
inline const void* data(const std::optional<Tensor>& tensor) {
  return tensor.has_value() && tensor->defined() ? tensor->const_data_ptr() : nullptr;
}

inline cudaStream_t current_stream() {
  return c10::cuda::getCurrentCUDAStream().stream();
}

}  // namespace fmoe::cuda
