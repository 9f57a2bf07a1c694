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
// zero by the activation kernels. The forward gives row_slot and checks the route; the backward has the same one.
Tensor spread_rows(const Tensor& x, const Tensor& slot_row, const GroupOffsets& groups, const Tensor& row_slot = {}) {
  Tensor result = at::empty({groups.rows(), x.size(1)}, x.options());
  spread(
      {dtype_of(x), result.mutable_data_ptr(), x.const_data_ptr(), indices(slot_row),
       row_slot.defined() ? indices(row_slot) : nullptr, groups.begin() + groups.experts(), groups.rows(), x.size(0),
       slot_row.size(1), x.size(1)},
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

std::tuple<Tensor, Tensor> run_forward(const char* op, const MoeMlpArguments& of) {
  check_moe_mlp(op, of);
  const c10::cuda::CUDAGuard guard(of.x.device());
  const Activation activation = activation_of(op, of.activation);
  const Tensor& x = of.x;
  const Tensor slots = as_indices(of.row_slot), rows_of = as_indices(of.slot_row), up = of.w1.contiguous(),
               down = of.w2.contiguous();
  const auto up_bias = contiguous(of.b1);
  const int64_t row_count = slots.size(0);
  GroupOffsets groups(of.offsets, row_count);
  Tensor pre;
  bool bias_is_in = false;
  {
    const Tensor rows = spread_rows(x.contiguous(), rows_of, groups, slots);
    bias_is_in = adds_bias_for_free(rows, up);
    pre = product_forward(rows, up, bias_is_in ? up_bias : std::nullopt, groups, Padding::Undefined);
  }
  Tensor hidden = at::empty({row_count, down.size(2)}, x.options());
  activation_forward(
      {dtype_of(x), activation, pre.mutable_data_ptr(), hidden.mutable_data_ptr(),
       bias_is_in ? nullptr : data(up_bias), groups.begin(), groups.experts(), row_count, down.size(2)},
      current_stream());
  const Tensor out = product_forward(hidden, down, contiguous(of.b2), groups, Padding::Undefined);
  return {summed(out, as_factor(of.score, x), rows_of), pre};
}

std::tuple<Tensor, Tensor> moe_mlp_forward(const MoeMlpArguments& of) {
  return run_forward("fmoe::moe_mlp_forward", of);
}

Tensor moe_mlp(const MoeMlpArguments& of) {
  return std::get<0>(run_forward("fmoe::moe_mlp", of));
}

MoeMlpGrads moe_mlp_backward(const MoeMlpBackwardArguments& given) {
  check_moe_mlp_backward(given);
  const MoeMlpArguments& of = given.forward;
  const c10::cuda::CUDAGuard guard(of.x.device());
  const Tensor& x = of.x;
  const Tensor incoming = given.grad.contiguous(), slots = as_indices(of.row_slot), rows_of = as_indices(of.slot_row),
               up = of.w1.contiguous(), down = of.w2.contiguous(), pre = given.pre_activation.contiguous(),
               factor = as_factor(of.score, x);
  const auto down_bias = contiguous(of.b2);
  const int64_t row_count = slots.size(0), choices = rows_of.size(1);
  const auto [want_x, want_w1, want_b1, want_w2, want_b2, want_score] = given.wanted;
  // Results may not share memory, so each unwanted one is a tensor of its own.
  const auto none_unless = [](bool is_wanted, const Tensor& of_dtype) {
    return is_wanted ? Tensor() : at::empty({0}, of_dtype.options());
  };
  Tensor x_grad = none_unless(want_x, x), w1_grad = none_unless(want_w1, x), b1_grad = none_unless(want_b1, x),
         w2_grad = none_unless(want_w2, x), b2_grad = none_unless(want_b2, x),
         score_grad = none_unless(want_score, of.score);
  GroupOffsets groups(of.offsets, row_count);

  Tensor pre_grad;
  {
    const Tensor out_grad = spread_rows(incoming, rows_of, groups);
    if (want_b2) {
      b2_grad = column_sums(out_grad, groups, factor, slots);
    }
    if (want_x || want_w1 || want_b1 || want_w2 || want_score) {
      Tensor inner = product_input_grad(out_grad, down, groups, Padding::Undefined);
      pre_grad = at::empty(pre.sizes(), pre.options());
      // Dropped slots have no row that would write theirs.
      Tensor factor_grad = at::zeros(factor.sizes(), factor.options());
      activation_backward(
          {dtype_of(x), activation_of("fmoe::moe_mlp_backward", of.activation), pre.const_data_ptr(),
           inner.mutable_data_ptr(), pre_grad.mutable_data_ptr(), factor.const_data_ptr(), factor_grad.mutable_data_ptr(),
           incoming.const_data_ptr(), want_score ? data(down_bias) : nullptr, indices(slots), groups.begin(),
           groups.experts(), row_count, factor.numel(), choices, down.size(2), x.size(1)},
          current_stream());
      if (want_score) {
        score_grad = factor_grad.to(of.score.scalar_type());
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
    w1_grad = product_weight_grad(pre_grad, spread_rows(x.contiguous(), rows_of, groups), groups);
  }
  if (want_x) {
    x_grad = summed(product_input_grad(pre_grad, up, groups, Padding::Undefined), Tensor(), rows_of);
  }
  return {x_grad, w1_grad, b1_grad, w2_grad, b2_grad, score_grad};
}

}  // namespace

TORCH_LIBRARY_IMPL(fmoe, CUDA, library) {
  library.impl("moe_mlp", TORCH_FN(moe_mlp_unpacked<moe_mlp>));
  library.impl("moe_mlp_forward", TORCH_FN(moe_mlp_unpacked<moe_mlp_forward>));
  library.impl("moe_mlp_backward", TORCH_FN(moe_mlp_backward_unpacked<moe_mlp_backward>));
}

}  // namespace fmoe::cuda
