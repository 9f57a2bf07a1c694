// The route plan, what follows from it, and the sticky error flags.
#include "checks.h"
#include "cuda/route.h"

#include <ATen/ops/empty.h>
#include <c10/util/Exception.h>
#include <torch/library.h>

#include <tuple>

namespace fmoe::cuda {

Plan make_plan(const char* op, const Tensor& expert_of, int64_t experts) {
  TORCH_CHECK_VALUE(
      experts <= kMaximumExperts, op, ": the number of experts must be at most ", kMaximumExperts, " on CUDA, got ",
      experts);
  const auto options = expert_of.options();
  const int64_t slots = expert_of.numel();
  Plan plan{at::empty({experts}, options), at::empty({experts + 1}, options), at::empty({slots}, options),
            at::empty(expert_of.sizes(), options)};
  const int64_t needed = route_plan_workspace(slots, static_cast<int>(experts));
  const Tensor workspace = needed > 0 ? at::empty({needed}, options.dtype(at::kInt)) : Tensor();
  plan_route(
      {indices(expert_of), slots, static_cast<int>(experts), plan.counts.mutable_data_ptr<int64_t>(),
       plan.offsets.mutable_data_ptr<int64_t>(), plan.row_slot.mutable_data_ptr<int64_t>(),
       plan.slot_row.mutable_data_ptr<int64_t>(), workspace.defined() ? workspace.mutable_data_ptr<int32_t>() : nullptr},
      current_stream());
  return plan;
}

namespace {

std::tuple<Tensor, Tensor, Tensor, Tensor> route_plan(const Tensor& top_idx, int64_t num_experts) {
  check_route_plan(top_idx, num_experts);
  const c10::cuda::CUDAGuard guard(top_idx.device());
  Plan plan = make_plan("fmoe::route_plan", as_indices(top_idx), num_experts);
  return {plan.counts, plan.offsets, plan.row_slot, plan.slot_row};
}

Tensor expert_count(const Tensor& top_idx, int64_t num_experts) {
  check_expert_count(top_idx, num_experts);
  const c10::cuda::CUDAGuard guard(top_idx.device());
  return make_plan("fmoe::expert_count", as_indices(top_idx), num_experts).counts;
}

Tensor assign_pos(const Tensor& cum_count, const Tensor& top_idx) {
  check_assign_pos(cum_count, top_idx);
  const c10::cuda::CUDAGuard guard(top_idx.device());
  const Tensor ends = as_indices(cum_count);
  const Plan plan = make_plan("fmoe::assign_pos", as_indices(top_idx), ends.size(0));
  compare_ends(indices(ends), indices(plan.offsets), ends.size(0), current_stream());
  return plan.row_slot;
}

Tensor limit_by_capacity(const Tensor& expert_count, const Tensor& capacity) {
  check_limit_by_capacity(expert_count, capacity);
  const c10::cuda::CUDAGuard guard(expert_count.device());
  const Tensor counts = as_indices(expert_count), limits = as_indices(capacity);
  Tensor granted = at::empty(counts.sizes(), counts.options());
  limit_counts(
      granted.mutable_data_ptr<int64_t>(), indices(counts), indices(limits), counts.numel() / limits.numel(),
      limits.numel(), current_stream());
  return granted;
}

Tensor prune_gate_by_capacity(const Tensor& top_idx, const Tensor& budget) {
  check_prune_gate_by_capacity(top_idx, budget);
  const c10::cuda::CUDAGuard guard(top_idx.device());
  const Tensor given = as_indices(top_idx), budgets = as_indices(budget);
  // First choices before second ones, and tokens in their order.
  const Tensor ordered = given.dim() == 2 ? given.t().contiguous() : given;
  const Plan plan = make_plan("fmoe::prune_gate_by_capacity", ordered, budgets.size(0));
  Tensor kept = at::empty(given.sizes(), given.options());
  prune(
      {indices(ordered), indices(plan.slot_row), indices(plan.offsets), indices(budgets),
       kept.mutable_data_ptr<int64_t>(), given.size(0), given.dim() == 2 ? given.size(1) : 1, budgets.size(0)},
      current_stream());
  return kept;
}

Tensor take_device_errors(const Tensor& on_device) {
  const c10::cuda::CUDAGuard guard(on_device.device());
  Tensor flags = at::empty({kBadValues}, on_device.options().dtype(at::kInt));
  take_error_flags(flags.mutable_data_ptr<int32_t>(), current_stream());
  return flags;
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(fmoe, library) {
  // Which values were out of range on this tensor's device since the last call, int32: [top_idx, row_slot, slot_row,
  // offsets, logits, expert_count, capacity, selection_bias]. The kernels took them for -1 (logits and sums with a bias for
  // -inf, counts and capacities for 0).
  library.def("take_device_errors(Tensor on_device) -> Tensor");
}

TORCH_LIBRARY_IMPL(fmoe, CUDA, library) {
  library.impl("route_plan", TORCH_FN(route_plan));
  library.impl("expert_count", TORCH_FN(expert_count));
  library.impl("assign_pos", TORCH_FN(assign_pos));
  library.impl("limit_by_capacity", TORCH_FN(limit_by_capacity));
  library.impl("prune_gate_by_capacity", TORCH_FN(prune_gate_by_capacity));
  library.impl("take_device_errors", TORCH_FN(take_device_errors));
}

}  // namespace fmoe::cuda
