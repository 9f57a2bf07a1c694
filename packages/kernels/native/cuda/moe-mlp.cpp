// The fused expert MLP. Forward keeps the pre-activation alone; backward gathers x again and makes the activation again, so
// that nothing of the model's width and nothing but one hidden width is ever saved:
//
//   forward    X = x[token]     P = X W1ᵀ + b1    A = act(P)       Y = A W2ᵀ + b2    y = Σ s Y
//   backward   G = dy[token]    D = G W2          dP = s D act'(P), A' = s A, ds = ⟨D, A⟩ + ⟨G, b2⟩
//              dW2 = Gᵀ A'      db2 = Σ s G       dW1 = dPᵀ X      db1 = Σ dP        dx = Σ dP W1
#include "activation.h"
#include "checks.h"
#include "cuda/products.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <torch/library.h>

#include <array>
#include <string_view>
#include <tuple>

namespace fmoe::cuda {

namespace {

static_assert(
    static_cast<int>(Activation::GeluTanh) == static_cast<int>(fmoe::Activation::kGeluTanh) &&
    static_cast<int>(Activation::SwiGlu) == static_cast<int>(fmoe::Activation::kSwiglu) &&
    static_cast<int>(Activation::ReGlu) == static_cast<int>(fmoe::Activation::kReglu));

Activation activation_of(const char* op, std::string_view name) {
  return static_cast<Activation>(parse_activation(op, name));
}

// The rows of the experts. Rows past them stay undefined: nothing reads those, and what a product makes of them is set to
// zero by the activation kernels.
Tensor spread_rows(const Tensor& x, const Tensor& slot_row, int64_t rows) {
  Tensor result = at::empty({rows, x.size(1)}, x.options());
  spread(
      {dtype_of(x), result.mutable_data_ptr(), x.const_data_ptr(), indices(slot_row), rows, x.size(0), slot_row.size(1),
       x.size(1)},
      current_stream());
  return result;
}

// factor undefined means 1.
Tensor summed(const Tensor& rows, const Tensor& factor, const Tensor& slot_row) {
  Tensor result = at::empty({slot_row.size(0), rows.size(1)}, rows.options());
  weighted_sum(
      {dtype_of(rows), result.mutable_data_ptr(), rows.const_data_ptr(),
       factor.defined() ? factor.const_data_ptr() : nullptr, indices(slot_row), rows.size(0), slot_row.size(0),
       slot_row.size(1), rows.size(1)},
      current_stream());
  return result;
}

std::optional<Tensor> contiguous(const std::optional<Tensor>& tensor) {
  return tensor.has_value() && tensor->defined() ? std::make_optional(tensor->contiguous()) : std::nullopt;
}

std::tuple<Tensor, Tensor> run_forward(
    const char* op,
    const Tensor& x,
    const Tensor& w1,
    const std::optional<Tensor>& b1,
    const Tensor& w2,
    const std::optional<Tensor>& b2,
    const Tensor& score,
    const Tensor& row_slot,
    const Tensor& slot_row,
    const Tensor& offsets,
    std::string_view name) {
  check_moe_mlp(op, x, w1, b1, w2, b2, score, row_slot, slot_row, offsets, name);
  const c10::cuda::CUDAGuard guard(x.device());
  const Activation activation = activation_of(op, name);
  const Tensor slots = as_indices(row_slot), rows_of = as_indices(slot_row), up = w1.contiguous(),
               down = w2.contiguous();
  const auto up_bias = contiguous(b1);
  GroupOffsets groups(offsets, slots.size(0));
  Tensor pre;
  bool bias_is_in = false;
  {
    const Tensor rows = spread_rows(x.contiguous(), rows_of, slots.size(0));
    bias_is_in = adds_bias_for_free(rows, up);
    pre = product_forward(rows, up, bias_is_in ? up_bias : std::nullopt, groups, Padding::Undefined);
  }
  Tensor hidden = at::empty({slots.size(0), down.size(2)}, x.options());
  activation_forward(
      {dtype_of(x), activation, pre.mutable_data_ptr(), hidden.mutable_data_ptr(),
       bias_is_in ? nullptr : data(up_bias), groups.begin(), groups.experts(), slots.size(0), down.size(2)},
      current_stream());
  const Tensor out = product_forward(hidden, down, contiguous(b2), groups, Padding::Undefined);
  return {summed(out, as_factor(score, x), rows_of), pre};
}

std::tuple<Tensor, Tensor> moe_mlp_forward(
    const Tensor& x,
    const Tensor& w1,
    const std::optional<Tensor>& b1,
    const Tensor& w2,
    const std::optional<Tensor>& b2,
    const Tensor& score,
    const Tensor& row_slot,
    const Tensor& slot_row,
    const Tensor& offsets,
    std::string_view activation) {
  return run_forward("fmoe::moe_mlp_forward", x, w1, b1, w2, b2, score, row_slot, slot_row, offsets, activation);
}

Tensor moe_mlp(
    const Tensor& x,
    const Tensor& w1,
    const std::optional<Tensor>& b1,
    const Tensor& w2,
    const std::optional<Tensor>& b2,
    const Tensor& score,
    const Tensor& row_slot,
    const Tensor& slot_row,
    const Tensor& offsets,
    std::string_view activation) {
  return std::get<0>(
      run_forward("fmoe::moe_mlp", x, w1, b1, w2, b2, score, row_slot, slot_row, offsets, activation));
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> moe_mlp_backward(
    const Tensor& grad,
    const Tensor& x,
    const Tensor& pre_activation,
    const Tensor& w1,
    const Tensor& w2,
    const std::optional<Tensor>& b2,
    const Tensor& score,
    const Tensor& row_slot,
    const Tensor& slot_row,
    const Tensor& offsets,
    std::string_view name,
    std::array<bool, 6> wanted) {
  check_moe_mlp_backward(
      grad, x, pre_activation, w1, w2, b2, score, row_slot, slot_row, offsets, name);
  const c10::cuda::CUDAGuard guard(x.device());
  const Tensor incoming = grad.contiguous(), slots = as_indices(row_slot), rows_of = as_indices(slot_row),
               up = w1.contiguous(), down = w2.contiguous(), pre = pre_activation.contiguous(),
               factor = as_factor(score, x);
  const auto down_bias = contiguous(b2);
  const int64_t row_count = slots.size(0), choices = rows_of.size(1);
  const auto [want_x, want_w1, want_b1, want_w2, want_b2, want_score] = wanted;
  const Tensor none = at::empty({0}, x.options());
  Tensor x_grad = none, w1_grad = none, b1_grad = none, w2_grad = none, b2_grad = none,
         score_grad = at::empty({0}, score.options());
  GroupOffsets groups(offsets, row_count);

  Tensor pre_grad;
  {
    const Tensor out_grad = spread_rows(incoming, rows_of, row_count);
    if (want_b2) {
      b2_grad = column_sums(out_grad, groups, factor, slots);
    }
    if (want_x || want_w1 || want_b1 || want_w2 || want_score) {
      Tensor inner = product_input_grad(out_grad, down, groups, Padding::Undefined);
      pre_grad = at::empty(pre.sizes(), pre.options());
      // Dropped slots have no row that would write theirs.
      Tensor factor_grad = at::zeros(factor.sizes(), factor.options());
      activation_backward(
          {dtype_of(x), activation_of("fmoe::moe_mlp_backward", name), pre.const_data_ptr(), inner.mutable_data_ptr(),
           pre_grad.mutable_data_ptr(), factor.const_data_ptr(), factor_grad.mutable_data_ptr(),
           incoming.const_data_ptr(), want_score ? data(down_bias) : nullptr, indices(slots), groups.begin(),
           groups.experts(), row_count, factor.numel(), choices, down.size(2), x.size(1)},
          current_stream());
      if (want_score) {
        score_grad = factor_grad.to(score.scalar_type());
      }
      if (want_w2) {
        w2_grad = product_weight_grad(out_grad, inner, groups);
      }
    }
  }
  if (want_b1) {
    b1_grad = column_sums(pre_grad, groups);
  }
  if (want_w1) {
    w1_grad = product_weight_grad(pre_grad, spread_rows(x.contiguous(), rows_of, row_count), groups);
  }
  if (want_x) {
    x_grad = summed(product_input_grad(pre_grad, up, groups, Padding::Undefined), Tensor(), rows_of);
  }
  return {x_grad, w1_grad, b1_grad, w2_grad, b2_grad, score_grad};
}

}  // namespace

TORCH_LIBRARY_IMPL(fmoe, CUDA, library) {
  library.impl("moe_mlp", TORCH_FN(moe_mlp));
  library.impl("moe_mlp_forward", TORCH_FN(moe_mlp_forward));
  library.impl("moe_mlp_backward", TORCH_FN(moe_mlp_backward));
}

}  // namespace fmoe::cuda
