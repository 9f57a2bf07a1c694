// Shapes and dtypes of the results, without data: for the meta device, torch.compile and torch.export.
#include "checks.h"
#include "ops.h"

#include <ATen/OpMathType.h>
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

std::tuple<Tensor, Tensor> topk_gate(
    const Tensor& logits, const std::optional<Tensor>& selection_bias, int64_t k, std::string_view score_function,
    bool) {
  check_topk_gate(logits, selection_bias, k, score_function);
  const std::array<SymInt, 2> sizes{logits.sym_size(0), SymInt(k)};
  return {
      logits.new_empty_symint(sizes, logits.options().dtype(at::kLong)),
      logits.new_empty_symint(sizes, logits.options().dtype(at::toOpMathType(logits.scalar_type())))};
}

Tensor topk_gate_backward(
    const Tensor& grad, const Tensor& logits, const Tensor& top_idx, const Tensor& top_score,
    std::string_view score_function, bool) {
  check_topk_gate_backward(grad, logits, top_idx, top_score, score_function);
  return like(logits, {logits.sym_size(0), logits.sym_size(1)});
}

Tensor indices(const Tensor& source, c10::SymIntArrayRef sizes) {
  return source.new_empty_symint(sizes, source.options().dtype(at::kLong));
}

Tensor expert_count(const Tensor& top_idx, int64_t num_experts) {
  check_expert_count(top_idx, num_experts);
  return indices(top_idx, {SymInt(num_experts)});
}

Tensor assign_pos(const Tensor& cum_count, const Tensor& top_idx) {
  check_assign_pos(cum_count, top_idx);
  return indices(top_idx, {top_idx.sym_numel()});
}

Tensor limit_by_capacity(const Tensor& expert_count, const Tensor& capacity) {
  check_limit_by_capacity(expert_count, capacity);
  return indices(expert_count, expert_count.sym_sizes());
}

Tensor prune_gate_by_capacity(const Tensor& top_idx, const Tensor& budget) {
  check_prune_gate_by_capacity(top_idx, budget);
  return indices(top_idx, top_idx.sym_sizes());
}

Tensor moe_mlp(const MoeMlpArguments& of) {
  check_moe_mlp("fmoe::moe_mlp", of);
  return like(of.x, {of.x.sym_size(0), of.x.sym_size(1)});
}

std::tuple<Tensor, Tensor> moe_mlp_forward(const MoeMlpArguments& of) {
  check_moe_mlp("fmoe::moe_mlp_forward", of);
  return {
      like(of.x, {of.x.sym_size(0), of.x.sym_size(1)}), like(of.x, {of.row_slot.sym_size(0), of.w1.sym_size(1)})};
}

MoeMlpGrads moe_mlp_backward(const MoeMlpBackwardArguments& given) {
  check_moe_mlp_backward(given);
  const auto make = [&](size_t position, const Tensor& source, c10::SymIntArrayRef sizes) {
    return given.wanted[position] ? source.new_empty_symint(sizes) : like(source, {SymInt(0)});
  };
  const Tensor &x = given.forward.x, &w1 = given.forward.w1, &w2 = given.forward.w2, &score = given.forward.score;
  return {
      make(0, x, x.sym_sizes()), make(1, w1, w1.sym_sizes()), make(2, w1, w1.sym_sizes().slice(0, 2)),
      make(3, w2, w2.sym_sizes()), make(4, w2, w2.sym_sizes().slice(0, 2)), make(5, score, score.sym_sizes())};
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
  library.impl("topk_gate", TORCH_FN(topk_gate));
  library.impl("topk_gate_backward", TORCH_FN(topk_gate_backward));
  library.impl("expert_count", TORCH_FN(expert_count));
  library.impl("assign_pos", TORCH_FN(assign_pos));
  library.impl("limit_by_capacity", TORCH_FN(limit_by_capacity));
  library.impl("prune_gate_by_capacity", TORCH_FN(prune_gate_by_capacity));
  library.impl("moe_mlp", TORCH_FN(moe_mlp_unpacked<moe_mlp>));
  library.impl("moe_mlp_forward", TORCH_FN(moe_mlp_unpacked<moe_mlp_forward>));
  library.impl("moe_mlp_backward", TORCH_FN(moe_mlp_backward_unpacked<moe_mlp_backward>));
}

}  // namespace fmoe
