// Shapes and dtypes of the results, without data: for the meta device, torch.compile and torch.export.
#include "checks.h"

#include <torch/library.h>

#include <tuple>

namespace fmoe {

namespace {

using c10::SymInt;

Tensor like(const Tensor& source, std::initializer_list<SymInt> sizes) {
  return source.new_empty_symint(c10::SymIntArrayRef(sizes.begin(), sizes.size()));
}

std::tuple<Tensor, Tensor, Tensor, Tensor> route_plan(const Tensor& top_idx, int64_t num_experts) {
  check_route_plan(top_idx, num_experts);
  const auto tokens = top_idx.sym_size(0), choices = top_idx.sym_size(1);
  const auto indices = top_idx.options().dtype(at::kLong);
  const auto make = [&](c10::SymIntArrayRef sizes) { return top_idx.new_empty_symint(sizes, indices); };
  return {
      make({SymInt(num_experts)}), make({SymInt(num_experts + 1)}), make({tokens * choices}),
      make({tokens, choices})};
}

Tensor dispatch(const Tensor& x, const Tensor& row_slot, const Tensor& slot_row) {
  check_dispatch(x, row_slot, slot_row);
  return like(x, {row_slot.sym_size(0), x.sym_size(1)});
}

Tensor dispatch_backward(const Tensor& grad, const Tensor& row_slot, const Tensor& slot_row) {
  check_dispatch_backward(grad, row_slot, slot_row);
  return like(grad, {slot_row.sym_size(0), grad.sym_size(1)});
}

Tensor grouped_linear(
    const Tensor& x, const Tensor& weight, const std::optional<Tensor>& bias, const Tensor& offsets) {
  check_grouped_linear(x, weight, bias, offsets);
  return like(x, {x.sym_size(0), weight.sym_size(1)});
}

Tensor grouped_linear_input_grad(const Tensor& grad, const Tensor& weight, const Tensor& offsets) {
  check_grouped_linear_input_grad(grad, weight, offsets);
  return like(grad, {grad.sym_size(0), weight.sym_size(2)});
}

std::tuple<Tensor, Tensor> grouped_linear_weight_grad(
    const Tensor& grad, const Tensor& x, const Tensor& offsets, bool with_bias) {
  check_grouped_linear_weight_grad(grad, x, offsets);
  const auto experts = offsets.sym_size(0) - 1, out = grad.sym_size(1);
  const Tensor bias_grad = with_bias ? like(grad, {experts, out}) : like(grad, {SymInt(0)});
  return {like(grad, {experts, out, x.sym_size(1)}), bias_grad};
}

Tensor combine(const Tensor& rows, const Tensor& score, const Tensor& slot_row) {
  check_combine(rows, score, slot_row);
  return like(rows, {slot_row.sym_size(0), rows.sym_size(1)});
}

std::tuple<Tensor, Tensor> combine_backward(
    const Tensor& grad, const Tensor& rows, const Tensor& score, const Tensor& slot_row) {
  check_combine_backward(grad, rows, score, slot_row);
  return {
      like(rows, {rows.sym_size(0), rows.sym_size(1)}), like(score, {score.sym_size(0), score.sym_size(1)})};
}

}  // namespace

TORCH_LIBRARY_IMPL(fmoe, Meta, library) {
  library.impl("route_plan", TORCH_FN(route_plan));
  library.impl("dispatch", TORCH_FN(dispatch));
  library.impl("dispatch_backward", TORCH_FN(dispatch_backward));
  library.impl("grouped_linear", TORCH_FN(grouped_linear));
  library.impl("grouped_linear_input_grad", TORCH_FN(grouped_linear_input_grad));
  library.impl("grouped_linear_weight_grad", TORCH_FN(grouped_linear_weight_grad));
  library.impl("combine", TORCH_FN(combine));
  library.impl("combine_backward", TORCH_FN(combine_backward));
}

}  // namespace fmoe
