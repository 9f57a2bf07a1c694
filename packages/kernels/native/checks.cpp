// Sizes are read as SymInt, so that the same checks serve fake tensors of torch.compile and torch.export.
#include "checks.h"

#include "activation.h"
#include "score-function.h"
#include "shape-text.h"

#include <c10/core/ScalarType.h>
#include <c10/util/Exception.h>

#include <string>

namespace fmoe {

namespace {

std::string name_of(at::ScalarType dtype) {
  return c10::getDtypeNames(dtype).first;
}

struct Argument {
  const char* name;
  const Tensor& tensor;
  const char* shape;  // the expected shape, for messages: "[T, D]"
};

void check_rank(const char* op, const Argument& argument, int64_t rank) {
  TORCH_CHECK_VALUE(
      argument.tensor.dim() == rank, op, ": ", argument.name, " must have shape ", argument.shape, ", got shape ",
      shape_text(argument.tensor));
}

void check_floating(const char* op, const Argument& argument) {
  const auto dtype = argument.tensor.scalar_type();
  TORCH_CHECK_TYPE(
      dtype == at::kFloat || dtype == at::kDouble || dtype == at::kHalf || dtype == at::kBFloat16, op, ": ",
      argument.name, " must have dtype float32, float64, float16 or bfloat16, got ", name_of(dtype));
}

void check_index(const char* op, const Argument& argument) {
  const auto dtype = argument.tensor.scalar_type();
  TORCH_CHECK_TYPE(
      dtype == at::kLong || dtype == at::kInt, op, ": ", argument.name, " must have dtype int64 or int32, got ",
      name_of(dtype));
}

void check_same_dtype(const char* op, const Argument& left, const Argument& right) {
  TORCH_CHECK_TYPE(
      left.tensor.scalar_type() == right.tensor.scalar_type(), op, ": ", left.name, " and ", right.name,
      " must have the same dtype, got ", name_of(left.tensor.scalar_type()), " and ",
      name_of(right.tensor.scalar_type()));
}

void check_same_device(const char* op, const Argument& left, const Argument& right) {
  TORCH_CHECK_VALUE(
      left.tensor.device() == right.tensor.device(), op, ": expected ", left.name, " and ", right.name,
      " on the same device, got ", left.tensor.device(), " and ", right.tensor.device());
}

// Dimension `i` of one tensor is dimension `j` of the other; `letter` is its name in the expected shapes.
void check_same_size(
    const char* op, const char* letter, const Argument& left, int64_t i, const Argument& right, int64_t j) {
  TORCH_CHECK_VALUE(
      left.tensor.sym_size(i) == right.tensor.sym_size(j), op, ": ", left.name, " ", left.shape, " and ",
      right.name, " ", right.shape, " must agree in ", letter, ", got shapes ", shape_text(left.tensor), " and ",
      shape_text(right.tensor));
}

void check_rows(const char* op, const Argument& argument) {
  check_rank(op, argument, 2);
  check_floating(op, argument);
}

void check_slot_row(const char* op, const Argument& slot_row) {
  check_rank(op, slot_row, 2);
  check_index(op, slot_row);
  TORCH_CHECK_VALUE(
      slot_row.tensor.sym_size(1) > 0, op, ": ", slot_row.name,
      " must hold at least one choice a token (K > 0), got shape ", shape_text(slot_row.tensor));
}

// The two index tensors of a route, on the device of `rows`.
void check_route(const char* op, const Argument& rows, const Argument& row_slot, const Argument& slot_row) {
  check_rank(op, row_slot, 1);
  check_index(op, row_slot);
  check_slot_row(op, slot_row);
  check_same_device(op, rows, row_slot);
  check_same_device(op, rows, slot_row);
}

// One score for each slot.
void check_score(const char* op, const Argument& score, const Argument& slot_row) {
  check_rows(op, score);
  check_same_size(op, "T", score, 0, slot_row, 0);
  check_same_size(op, "K", score, 1, slot_row, 1);
}

void check_offsets(const char* op, const Argument& offsets) {
  check_rank(op, offsets, 1);
  check_index(op, offsets);
  TORCH_CHECK_VALUE(
      offsets.tensor.sym_size(0) > 1, op, ": offsets must have shape [E + 1] with E > 0, got shape ",
      shape_text(offsets.tensor));
}

void check_weight(const char* op, const Argument& weight, const Argument& offsets) {
  check_rank(op, weight, 3);
  check_floating(op, weight);
  TORCH_CHECK_VALUE(
      offsets.tensor.sym_size(0) == weight.tensor.sym_size(0) + 1, op,
      ": offsets must hold one number more than weight ", weight.shape, " has experts, got offsets of shape ",
      shape_text(offsets.tensor), " and weight of shape ", shape_text(weight.tensor));
}

bool is_given(const std::optional<Tensor>& tensor) {
  return tensor.has_value() && tensor->defined();
}

// bias [E, out] beside weight [E, out, in]; `letter` is the name of `out`.
void check_bias(const char* op, const Argument& bias, const Argument& weight, const char* letter) {
  check_rank(op, bias, 2);
  check_same_dtype(op, weight, bias);
  check_same_device(op, weight, bias);
  check_same_size(op, "E", weight, 0, bias, 0);
  check_same_size(op, letter, weight, 1, bias, 1);
}

}  // namespace

void check_route_plan(const Tensor& top_idx, int64_t num_experts) {
  const char* op = "fmoe::route_plan";
  TORCH_CHECK_VALUE(num_experts > 0, op, ": num_experts must be positive, got ", num_experts);
  check_slot_row(op, {"top_idx", top_idx, "[T, K]"});
}

void check_dispatch(const Tensor& x_, const Tensor& row_slot_, const Tensor& slot_row_) {
  const char* op = "fmoe::dispatch";
  const Argument x{"x", x_, "[T, D]"}, row_slot{"row_slot", row_slot_, "[R]"},
      slot_row{"slot_row", slot_row_, "[T, K]"};
  check_rows(op, x);
  check_route(op, x, row_slot, slot_row);
  check_same_size(op, "T", x, 0, slot_row, 0);
}

void check_dispatch_backward(const Tensor& grad_, const Tensor& row_slot_, const Tensor& slot_row_) {
  const char* op = "fmoe::dispatch_backward";
  const Argument grad{"grad", grad_, "[R, D]"}, row_slot{"row_slot", row_slot_, "[R]"},
      slot_row{"slot_row", slot_row_, "[T, K]"};
  check_rows(op, grad);
  check_route(op, grad, row_slot, slot_row);
  check_same_size(op, "R", grad, 0, row_slot, 0);
}

void check_grouped_linear(
    const Tensor& x_, const Tensor& weight_, const std::optional<Tensor>& bias_, const Tensor& offsets_) {
  const char* op = "fmoe::grouped_linear";
  const Argument x{"x", x_, "[R, in]"}, weight{"weight", weight_, "[E, out, in]"},
      offsets{"offsets", offsets_, "[E + 1]"};
  check_rows(op, x);
  check_offsets(op, offsets);
  check_weight(op, weight, offsets);
  check_same_dtype(op, x, weight);
  check_same_device(op, x, weight);
  check_same_device(op, x, offsets);
  check_same_size(op, "in", x, 1, weight, 2);
  if (is_given(bias_)) {
    check_bias(op, {"bias", *bias_, "[E, out]"}, weight, "out");
  }
}

void check_grouped_linear_input_grad(const Tensor& grad_, const Tensor& weight_, const Tensor& offsets_) {
  const char* op = "fmoe::grouped_linear_input_grad";
  const Argument grad{"grad", grad_, "[R, out]"}, weight{"weight", weight_, "[E, out, in]"},
      offsets{"offsets", offsets_, "[E + 1]"};
  check_rows(op, grad);
  check_offsets(op, offsets);
  check_weight(op, weight, offsets);
  check_same_dtype(op, grad, weight);
  check_same_device(op, grad, weight);
  check_same_device(op, grad, offsets);
  check_same_size(op, "out", grad, 1, weight, 1);
}

void check_grouped_linear_weight_grad(const Tensor& grad_, const Tensor& x_, const Tensor& offsets_) {
  const char* op = "fmoe::grouped_linear_weight_grad";
  const Argument grad{"grad", grad_, "[R, out]"}, x{"x", x_, "[R, in]"}, offsets{"offsets", offsets_, "[E + 1]"};
  check_rows(op, grad);
  check_rows(op, x);
  check_offsets(op, offsets);
  check_same_dtype(op, grad, x);
  check_same_device(op, grad, x);
  check_same_device(op, grad, offsets);
  check_same_size(op, "R", grad, 0, x, 0);
}

void check_combine(const Tensor& rows_, const Tensor& score_, const Tensor& slot_row_) {
  const char* op = "fmoe::combine";
  const Argument rows{"rows", rows_, "[R, D]"}, score{"score", score_, "[T, K]"},
      slot_row{"slot_row", slot_row_, "[T, K]"};
  check_rows(op, rows);
  check_slot_row(op, slot_row);
  check_score(op, score, slot_row);
  check_same_device(op, rows, score);
  check_same_device(op, rows, slot_row);
}

void check_combine_backward(
    const Tensor& grad_, const Tensor& rows_, const Tensor& score_, const Tensor& slot_row_) {
  const char* op = "fmoe::combine_backward";
  check_combine(rows_, score_, slot_row_);
  const Argument grad{"grad", grad_, "[T, D]"}, rows{"rows", rows_, "[R, D]"},
      slot_row{"slot_row", slot_row_, "[T, K]"};
  check_rows(op, grad);
  check_same_dtype(op, grad, rows);
  check_same_device(op, grad, rows);
  check_same_size(op, "T", grad, 0, slot_row, 0);
  check_same_size(op, "D", grad, 1, rows, 1);
}

void check_router_logits(const Tensor& x_, const Tensor& weight_, const std::optional<Tensor>& bias_) {
  const char* op = "fmoe::router_logits";
  const Argument x{"x", x_, "[T, D]"}, weight{"weight", weight_, "[N, D]"};
  check_rows(op, x);
  check_rows(op, weight);
  check_same_device(op, x, weight);
  check_same_size(op, "D", x, 1, weight, 1);
  if (is_given(bias_)) {
    const Argument bias{"bias", *bias_, "[N]"};
    check_rank(op, bias, 1);
    check_floating(op, bias);
    check_same_device(op, x, bias);
    check_same_size(op, "N", weight, 0, bias, 0);
  }
}

void check_topk_gate(
    const Tensor& logits_,
    const std::optional<Tensor>& selection_bias_,
    int64_t k,
    std::string_view score_function) {
  const char* op = "fmoe::topk_gate";
  const Argument logits{"logits", logits_, "[T, N]"};
  check_rows(op, logits);
  parse_score_function(op, score_function);
  TORCH_CHECK_VALUE(
      k > 0 && logits_.sym_size(1) >= k, op, ": k must be at least 1 and at most the number of experts N, got ", k,
      " for logits of shape ", shape_text(logits_));
  if (is_given(selection_bias_)) {
    const Argument bias{"selection_bias", *selection_bias_, "[N]"};
    check_rank(op, bias, 1);
    check_floating(op, bias);
    check_same_device(op, logits, bias);
    check_same_size(op, "N", logits, 1, bias, 0);
  }
}

void check_topk_gate_backward(
    const Tensor& grad_,
    const Tensor& logits_,
    const Tensor& top_idx_,
    const Tensor& top_score_,
    std::string_view score_function) {
  const char* op = "fmoe::topk_gate_backward";
  const Argument grad{"grad", grad_, "[T, K]"}, logits{"logits", logits_, "[T, N]"},
      top_idx{"top_idx", top_idx_, "[T, K]"}, top_score{"top_score", top_score_, "[T, K]"};
  check_rows(op, logits);
  check_slot_row(op, top_idx);
  parse_score_function(op, score_function);
  for (const Argument& argument : {grad, top_score}) {
    check_score(op, argument, top_idx);
    check_same_device(op, logits, argument);
  }
  check_same_device(op, logits, top_idx);
  check_same_size(op, "T", logits, 0, top_idx, 0);
}

void check_expert_count(const Tensor& top_idx, int64_t num_experts) {
  const char* op = "fmoe::expert_count";
  TORCH_CHECK_VALUE(num_experts > 0, op, ": num_experts must be positive, got ", num_experts);
  check_index(op, {"top_idx", top_idx, "[...]"});
}

void check_assign_pos(const Tensor& cum_count_, const Tensor& top_idx_) {
  const char* op = "fmoe::assign_pos";
  const Argument cum_count{"cum_count", cum_count_, "[N]"}, top_idx{"top_idx", top_idx_, "[...]"};
  check_rank(op, cum_count, 1);
  check_index(op, cum_count);
  check_index(op, top_idx);
  check_same_device(op, cum_count, top_idx);
}

void check_limit_by_capacity(const Tensor& expert_count_, const Tensor& capacity_) {
  const char* op = "fmoe::limit_by_capacity";
  const Argument expert_count{"expert_count", expert_count_, "[W * E]"}, capacity{"capacity", capacity_, "[E]"};
  check_rank(op, expert_count, 1);
  check_rank(op, capacity, 1);
  check_index(op, expert_count);
  check_index(op, capacity);
  check_same_device(op, expert_count, capacity);
  TORCH_CHECK_VALUE(
      capacity_.sym_size(0) > 0 && expert_count_.sym_size(0) % capacity_.sym_size(0) == 0, op,
      ": expert_count [W * E] must hold a whole number of times as many experts as capacity [E], got shapes ",
      shape_text(expert_count_), " and ", shape_text(capacity_));
}

void check_prune_gate_by_capacity(const Tensor& top_idx_, const Tensor& budget_) {
  const char* op = "fmoe::prune_gate_by_capacity";
  const Argument top_idx{"top_idx", top_idx_, "[T, K]"}, budget{"budget", budget_, "[N]"};
  TORCH_CHECK_VALUE(
      top_idx_.dim() == 1 || top_idx_.dim() == 2, op, ": top_idx must have shape [T] or [T, K], got shape ",
      shape_text(top_idx_));
  check_rank(op, budget, 1);
  check_index(op, top_idx);
  check_index(op, budget);
  check_same_device(op, top_idx, budget);
}

void check_moe_mlp(const char* op, const MoeMlpArguments& of) {
  const bool gated = is_gated(parse_activation(op, of.activation));
  const Argument x{"x", of.x, "[T, D]"}, w1{"w1", of.w1, gated ? "[E, 2H, D]" : "[E, H, D]"},
      w2{"w2", of.w2, "[E, D, H]"}, score{"score", of.score, "[T, K]"}, row_slot{"row_slot", of.row_slot, "[R]"},
      slot_row{"slot_row", of.slot_row, "[T, K]"}, offsets{"offsets", of.offsets, "[E + 1]"};
  check_rows(op, x);
  check_route(op, x, row_slot, slot_row);
  check_score(op, score, slot_row);
  check_offsets(op, offsets);
  for (const Argument& weight : {w1, w2}) {
    check_weight(op, weight, offsets);
    check_same_dtype(op, x, weight);
  }
  for (const Argument& argument : {w1, w2, score, offsets}) {
    check_same_device(op, x, argument);
  }
  check_same_size(op, "T", x, 0, slot_row, 0);
  check_same_size(op, "D", x, 1, w1, 2);
  check_same_size(op, "D", x, 1, w2, 1);
  TORCH_CHECK_VALUE(
      of.w1.sym_size(1) == of.w2.sym_size(2) * (gated ? 2 : 1), op, ": w1 ", w1.shape,
      " and w2 [E, D, H] must agree in H for activation ", of.activation, ", got shapes ", shape_text(of.w1), " and ",
      shape_text(of.w2));
  if (is_given(of.b1)) {
    check_bias(op, {"b1", *of.b1, gated ? "[E, 2H]" : "[E, H]"}, w1, gated ? "2H" : "H");
  }
  if (is_given(of.b2)) {
    check_bias(op, {"b2", *of.b2, "[E, D]"}, w2, "D");
  }
}

void check_moe_mlp_backward(const MoeMlpBackwardArguments& given) {
  const char* op = "fmoe::moe_mlp_backward";
  const MoeMlpArguments& of = given.forward;
  check_moe_mlp(op, of);
  const Argument grad{"grad", given.grad, "[T, D]"}, x{"x", of.x, "[T, D]"}, w1{"w1", of.w1, "[E, H or 2H, D]"},
      pre{"pre_activation", given.pre_activation, "[R, H or 2H]"}, row_slot{"row_slot", of.row_slot, "[R]"};
  for (const Argument& argument : {grad, pre}) {
    check_rows(op, argument);
    check_same_dtype(op, x, argument);
    check_same_device(op, x, argument);
  }
  check_same_size(op, "T", grad, 0, x, 0);
  check_same_size(op, "D", grad, 1, x, 1);
  check_same_size(op, "R", pre, 0, row_slot, 0);
  check_same_size(op, "H or 2H", pre, 1, w1, 1);
}

}  // namespace fmoe
