// Counting slots and limiting them by capacity, always in one order: first choices before second ones, and among equal
// choices tokens in their order.
#include "checks.h"
#include "cpu/slots.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>
#include <torch/library.h>

#include <algorithm>
#include <vector>

namespace fmoe::cpu {

namespace {

void check_expert(const char* op, int64_t expert, int64_t slot, int64_t num_experts) {
  TORCH_CHECK_INDEX(
      expert >= -1 && expert < num_experts, op, ": top_idx holds ", expert, " at flat position ", slot,
      ", expected -1 (dropped) or an expert in [0, ", num_experts, ")");
}

Tensor expert_count(const Tensor& top_idx, int64_t num_experts) {
  check_expert_count(top_idx, num_experts);
  const Tensor indices = as_indices(top_idx);
  const auto* expert_of = indices.const_data_ptr<int64_t>();
  Tensor counts = at::zeros({num_experts}, indices.options());
  auto* count = counts.mutable_data_ptr<int64_t>();
  for (int64_t slot = 0; slot < indices.numel(); ++slot) {
    check_expert("fmoe::expert_count", expert_of[slot], slot, num_experts);
    if (expert_of[slot] >= 0) {
      ++count[expert_of[slot]];
    }
  }
  return counts;
}

Tensor assign_pos(const Tensor& cum_count, const Tensor& top_idx) {
  check_assign_pos(cum_count, top_idx);
  const char* op = "fmoe::assign_pos";
  const Tensor ends = as_indices(cum_count), indices = as_indices(top_idx);
  const auto* end = ends.const_data_ptr<int64_t>();
  const auto* expert_of = indices.const_data_ptr<int64_t>();
  const int64_t experts = ends.numel(), slots = indices.numel();
  // next[e]: the next free position of expert e, which begins where its predecessor ends.
  std::vector<int64_t> next(experts);
  for (int64_t expert = 0; expert < experts; ++expert) {
    next[expert] = expert == 0 ? 0 : end[expert - 1];
    TORCH_CHECK_INDEX(
        next[expert] <= end[expert] && end[expert] <= slots, op, ": cum_count holds ", end[expert], " at expert ",
        expert, ", expected at least ", next[expert], " and at most the number of slots, ", slots);
  }
  Tensor positions = at::full({slots}, -1, indices.options());
  auto* position = positions.mutable_data_ptr<int64_t>();
  for (int64_t slot = 0; slot < slots; ++slot) {
    const int64_t expert = expert_of[slot];
    check_expert(op, expert, slot, experts);
    if (expert >= 0) {
      TORCH_CHECK_INDEX(
          next[expert] < end[expert], op, ": top_idx names expert ", expert, " more often than cum_count says");
      position[next[expert]++] = slot;
    }
  }
  for (int64_t expert = 0; expert < experts; ++expert) {
    TORCH_CHECK_INDEX(
        next[expert] == end[expert], op, ": top_idx names expert ", expert, " less often than cum_count says");
  }
  return positions;
}

// Copies what each expert may take.
std::vector<int64_t> read_limits(const char* op, const char* name, const Tensor& limits) {
  const auto* limit = limits.const_data_ptr<int64_t>();
  for (int64_t expert = 0; expert < limits.numel(); ++expert) {
    TORCH_CHECK_INDEX(
        limit[expert] >= 0, op, ": ", name, " holds ", limit[expert], " at expert ", expert,
        ", expected no negative number");
  }
  return {limit, limit + limits.numel()};
}

Tensor limit_by_capacity(const Tensor& expert_count, const Tensor& capacity) {
  check_limit_by_capacity(expert_count, capacity);
  const Tensor counts = as_indices(expert_count), limits = as_indices(capacity);
  const int64_t experts = limits.numel();
  const auto* count = counts.const_data_ptr<int64_t>();
  Tensor granted = at::empty(counts.sizes(), counts.options());
  auto* grant = granted.mutable_data_ptr<int64_t>();
  std::vector<int64_t> left = read_limits("fmoe::limit_by_capacity", "capacity", limits);
  for (int64_t i = 0; i < counts.numel(); ++i) {
    TORCH_CHECK_INDEX(
        count[i] >= 0, "fmoe::limit_by_capacity: expert_count holds ", count[i], " at flat position ", i,
        ", expected no negative number");
    grant[i] = std::min(count[i], left[i % experts]);
    left[i % experts] -= grant[i];
  }
  return granted;
}

Tensor prune_gate_by_capacity(const Tensor& top_idx, const Tensor& budget) {
  check_prune_gate_by_capacity(top_idx, budget);
  const char* op = "fmoe::prune_gate_by_capacity";
  const Tensor indices = as_indices(top_idx), budgets = as_indices(budget);
  const int64_t experts = budgets.numel();
  const auto* expert_of = indices.const_data_ptr<int64_t>();
  const int64_t choices = indices.dim() == 2 ? indices.size(1) : 1, tokens = indices.size(0);
  std::vector<int64_t> left = read_limits(op, "budget", budgets);
  Tensor pruned = at::empty(indices.sizes(), indices.options());
  auto* kept = pruned.mutable_data_ptr<int64_t>();
  for (int64_t choice = 0; choice < choices; ++choice) {
    for (int64_t token = 0; token < tokens; ++token) {
      const int64_t slot = token * choices + choice, expert = expert_of[slot];
      check_expert(op, expert, slot, experts);
      kept[slot] = expert >= 0 && left[expert] > 0 ? expert : -1;
      if (kept[slot] >= 0) {
        --left[expert];
      }
    }
  }
  return pruned;
}

}  // namespace

TORCH_LIBRARY_IMPL(fmoe, CPU, library) {
  library.impl("expert_count", TORCH_FN(expert_count));
  library.impl("assign_pos", TORCH_FN(assign_pos));
  library.impl("limit_by_capacity", TORCH_FN(limit_by_capacity));
  library.impl("prune_gate_by_capacity", TORCH_FN(prune_gate_by_capacity));
}

}  // namespace fmoe::cpu
