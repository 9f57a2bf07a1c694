// The grouped matrix products on tensors: libtorch's own where it reads the offsets on the device, else ours.
//
// The arguments are contiguous and on the current device. Offsets are int64.
#pragma once

#include "cuda/tensors.h"

#include <optional>

namespace fmoe::cuda {

// Offsets in the forms that the products take. The int32 ends are made when the first product asks for them.
class GroupOffsets {
 public:
  GroupOffsets(const Tensor& offsets, int64_t rows) : offsets_(as_indices(offsets)), rows_(rows) {}

  const int64_t* begin() const { return indices(offsets_); }
  int64_t experts() const { return offsets_.size(0) - 1; }
  int64_t rows() const { return rows_; }
  const Tensor& ends();

 private:
  Tensor offsets_;
  Tensor ends_;
  int64_t rows_;
};

enum class Padding { Zeros, Undefined };  // of the rows past the last expert

// x [R, in], weight [E, out, in], bias [E, out] -> x Wᵀ (+ b) [R, out].
Tensor product_forward(
    const Tensor& x, const Tensor& weight, const std::optional<Tensor>& bias, GroupOffsets& groups, Padding padding);
// Whether product_forward adds a bias for nothing. Else the caller may fuse it into the next step.
bool adds_bias_for_free(const Tensor& x, const Tensor& weight);
// grad [R, out], weight [E, out, in] -> g W [R, in].
Tensor product_input_grad(const Tensor& grad, const Tensor& weight, GroupOffsets& groups, Padding padding);
// grad [R, out], x [R, in] -> gᵀ x [E, out, in].
Tensor product_weight_grad(const Tensor& grad, const Tensor& x, GroupOffsets& groups);
// Σ of the rows of each expert, times factor[row_slot[r]] where given: [R, D] -> [E, D].
Tensor column_sums(
    const Tensor& rows,
    const GroupOffsets& groups,
    const std::optional<Tensor>& factor = std::nullopt,
    const std::optional<Tensor>& row_slot = std::nullopt);

}  // namespace fmoe::cuda
