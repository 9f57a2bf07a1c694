// One linear layer for each expert over rows grouped by expert.
//
// Work is cut into equal shares, one a thread, and each share calls single-threaded GEMMs: by rows for the output
// and the input's gradient, by (expert, output column) for the weight's gradient. Against one multi-threaded GEMM an
// expert this wakes the threads once instead of E times and keeps them evenly loaded for any split of the rows.
#include "cpu/grouped-linear.h"

#include "checks.h"
#include "cpu/groups.h"
#include "cpu/row-kernels.h"

#include <ATen/ops/addmm.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/mm.h>
#include <torch/library.h>

#include <algorithm>
#include <optional>
#include <tuple>

namespace fmoe::cpu {

namespace {

// Share borders of the weight's gradient fall on multiples of this many output columns.
constexpr int64_t kColumnTile = 16;
// Half-precision operands are widened to float32 this many rows at a time.
constexpr int64_t kWideRows = 512;

// out = a · b (+ bias), where a [n, k] and b [k, m] have a half-precision dtype.
void widened_product(
    Tensor out, const Tensor& a, const Tensor& b, const std::optional<Tensor>& bias) {
  const Tensor wide_b = b.to(at::kFloat);
  const Tensor wide_bias = bias ? bias->to(at::kFloat) : Tensor();
  for (int64_t begin = 0; begin < a.size(0); begin += kWideRows) {
    const int64_t count = std::min(kWideRows, a.size(0) - begin);
    const Tensor wide_a = a.narrow(0, begin, count).to(at::kFloat);
    out.narrow(0, begin, count).copy_(bias ? at::addmm(wide_bias, wide_a, wide_b) : at::mm(wide_a, wide_b));
  }
}

// result rows of expert e = rows of expert e · matrix[e] (+ bias[e]); rows of no expert become 0.
Tensor grouped_product(
    const Groups& groups, const Tensor& rows, const Tensor& matrix, const std::optional<Tensor>& bias) {
  const int64_t in = matrix.size(1), out = matrix.size(2);
  Tensor result = at::empty({rows.size(0), out}, rows.options());
  if (groups.rows() < rows.size(0)) {
    result.narrow(0, groups.rows(), rows.size(0) - groups.rows()).zero_();
  }
  const bool widen = needs_widening(rows.scalar_type());
  for_row_shares(groups, in * out, [&](int64_t expert, int64_t begin, int64_t count) {
    const Tensor source = rows.narrow(0, begin, count), factor = matrix.select(0, expert);
    const auto addend = bias ? std::make_optional(bias->select(0, expert)) : std::nullopt;
    Tensor target = result.narrow(0, begin, count);
    if (widen) {
      widened_product(target, source, factor, addend);
    } else if (addend) {
      at::addmm_out(target, *addend, source, factor);
    } else {
      at::mm_out(target, source, factor);
    }
  });
  return result;
}

Tensor grouped_linear(
    const Tensor& x, const Tensor& weight, const std::optional<Tensor>& bias, const Tensor& offsets) {
  check_grouped_linear(x, weight, bias, offsets);
  const Groups groups("fmoe::grouped_linear", offsets, x.size(0));
  return grouped_product(groups, x.contiguous(), weight.transpose(1, 2), bias);
}

Tensor grouped_linear_input_grad(const Tensor& grad, const Tensor& weight, const Tensor& offsets) {
  check_grouped_linear_input_grad(grad, weight, offsets);
  const Groups groups("fmoe::grouped_linear_input_grad", offsets, grad.size(0));
  return grouped_product(groups, grad.contiguous(), weight, std::nullopt);
}

// out [columns, in] = gradᵀ · x, the operands in half precision.
void widened_outer(Tensor out, const Tensor& grad, const Tensor& x) {
  Tensor total;
  for (int64_t begin = 0; begin < x.size(0); begin += kWideRows) {
    const int64_t count = std::min(kWideRows, x.size(0) - begin);
    const Tensor wide_grad = grad.narrow(0, begin, count).to(at::kFloat);
    const Tensor wide_x = x.narrow(0, begin, count).to(at::kFloat);
    if (total.defined()) {
      total.addmm_(wide_grad.t(), wide_x);
    } else {
      total = at::mm(wide_grad.t(), wide_x);
    }
  }
  out.copy_(total);
}

// Calls body(expert, first_column, column_count) for each share of the pairs (expert, output column), where a pair
// costs as much as the expert has rows.
template <typename Body>
void for_column_shares(const Groups& groups, int64_t columns, int64_t in, const Body& body) {
  const auto& offset = groups.offsets;
  const int64_t grain = std::max<int64_t>(1, kMinimumShare / std::max<int64_t>(1, in));
  at::parallel_for(0, groups.rows() * columns, grain, [&](int64_t first, int64_t last) {
    const at::AutoDispatchBelowADInplaceOrView guard;
    for (int64_t expert = 0; expert < groups.experts(); ++expert) {
      const int64_t rows = offset[expert + 1] - offset[expert];
      if (rows == 0) {
        continue;
      }
      // Both neighbours of a border compute it by this rule, so the shares cover every column once.
      const auto border = [&](int64_t position) {
        const int64_t inside = position - offset[expert] * columns;
        if (inside <= 0) {
          return int64_t{0};
        }
        return inside >= rows * columns ? columns : inside / rows / kColumnTile * kColumnTile;
      };
      const int64_t begin = border(first), end = border(last);
      if (begin < end) {
        body(expert, begin, end - begin);
      }
    }
  });
}

}  // namespace

void weight_grad_out(
    const Groups& groups, const Tensor& grad, const Tensor& x, const Tensor& weight_grad, const Tensor& bias_grad) {
  if (!weight_grad.defined() && !bias_grad.defined()) {
    return;
  }
  const int64_t out = grad.size(1), in = x.size(1);
  const auto& offset = groups.offsets;
  for (int64_t expert = 0; expert < groups.experts(); ++expert) {
    if (offset[expert] == offset[expert + 1]) {
      for (const Tensor& sum : {weight_grad, bias_grad}) {
        if (sum.defined()) {
          sum.select(0, expert).zero_();
        }
      }
    }
  }

  const bool widen = needs_widening(grad.scalar_type());
  for_column_shares(groups, out, in, [&](int64_t expert, int64_t begin, int64_t count) {
    const int64_t first_row = offset[expert], rows = offset[expert + 1] - first_row;
    const Tensor grad_rows = grad.narrow(0, first_row, rows);
    if (weight_grad.defined()) {
      const Tensor grad_part = grad_rows.narrow(1, begin, count), x_part = x.narrow(0, first_row, rows);
      Tensor target = weight_grad.select(0, expert).narrow(0, begin, count);
      if (widen) {
        widened_outer(target, grad_part, x_part);
      } else {
        at::mm_out(target, grad_part.t(), x_part);
      }
    }
    if (bias_grad.defined()) {
      const ColumnSum task{
          grad.scalar_type(), bias_grad.select(0, expert).mutable_data_ptr(), grad_rows.const_data_ptr(), rows, out};
      row_kernels().column_sum(task, begin, begin + count);
    }
  });
}

namespace {

std::tuple<Tensor, Tensor> grouped_linear_weight_grad(
    const Tensor& grad, const Tensor& x, const Tensor& offsets, bool with_bias) {
  check_grouped_linear_weight_grad(grad, x, offsets);
  const Groups groups("fmoe::grouped_linear_weight_grad", offsets, x.size(0));
  const int64_t out = grad.size(1), in = x.size(1);
  Tensor weight_grad = at::empty({groups.experts(), out, in}, x.options());
  Tensor bias_grad = with_bias ? at::empty({groups.experts(), out}, x.options()) : Tensor();
  weight_grad_out(groups, grad.contiguous(), x.contiguous(), weight_grad, bias_grad);
  return {weight_grad, with_bias ? bias_grad : at::empty({0}, x.options())};
}

}  // namespace

TORCH_LIBRARY_IMPL(fmoe, CPU, library) {
  library.impl("grouped_linear", TORCH_FN(grouped_linear));
  library.impl("grouped_linear_input_grad", TORCH_FN(grouped_linear_input_grad));
  library.impl("grouped_linear_weight_grad", TORCH_FN(grouped_linear_weight_grad));
}

}  // namespace fmoe::cpu
