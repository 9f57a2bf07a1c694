// Rows of experts to the ranks where the experts live, and back: one all-to-all per direction.
//
// N all experts, E local experts, W ranks, R rows here in expert order, L rows received. `order` [N] lists the experts by rank and,
// on each rank, by slot; `experts_of_rank` [W] says how many each has. Rows leave ordered that way and arrive by source rank;
// they are handed out by local expert and, for each, by source rank, as the grouped products want them.
#include <ATen/Parallel.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include <algorithm>
#include <cstring>
#include <numeric>

#include "row-autograd.h"

namespace fmoe::comm {

namespace {

using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::variable_list;

// Rows that stay together when two orders differ.
struct Block {
  int64_t from, to, rows;
};

using Blocks = std::vector<Block>;

void add_block(Blocks& blocks, int64_t from, int64_t to, int64_t rows) {
  if (rows == 0) return;
  if (!blocks.empty()) {
    Block& last = blocks.back();
    if (last.from + last.rows == from && last.to + last.rows == to) {
      last.rows += rows;
      return;
    }
  }
  blocks.push_back({from, to, rows});
}

bool is_identity(const Blocks& blocks) { return blocks.empty() || (blocks.size() == 1 && blocks[0].from == blocks[0].to); }

Blocks inverse(const Blocks& blocks) {
  Blocks result;
  for (const Block& block : blocks) result.push_back({block.to, block.from, block.rows});
  return result;
}

// target[to …] = source[from …] for each block; both contiguous, of equal row size, and the blocks fill the target.
void copy_blocks(const Tensor& source, const Tensor& target, const Blocks& blocks) {
  if (blocks.empty() || source.numel() == 0) return;
  if (!source.is_cpu()) {
    // A launch for many blocks at once. Row numbers would have to be copied from the host, which would wait for the device.
    Blocks in_order = blocks;
    std::sort(in_order.begin(), in_order.end(), [](const Block& left, const Block& right) { return left.to < right.to; });
    std::vector<Tensor> pieces;
    for (const Block& block : in_order) {
      if (block.rows > 0) pieces.push_back(source.narrow(0, block.from, block.rows));
    }
    Tensor out = target;
    at::cat_out(out, pieces);
    return;
  }
  const int64_t row_bytes = source.numel() / source.size(0) * source.element_size();
  const auto* input = static_cast<const char*>(source.const_data_ptr());
  auto* output = static_cast<char*>(target.data_ptr());
  at::parallel_for(0, static_cast<int64_t>(blocks.size()), 1, [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) {
      const Block& block = blocks[i];
      std::memcpy(output + block.to * row_bytes, input + block.from * row_bytes, block.rows * row_bytes);
    }
  });
}

struct Plan {
  Counts send_rows, receive_rows;  // [W]
  Blocks leave;                    // from expert order to the order in which rows leave
  Blocks arrive;                   // from the order in which rows arrive to local-expert order
  int64_t sent = 0, received = 0;
};

const int64_t* counts_in(const Tensor& tensor, int64_t size, const char* name) {
  TORCH_CHECK_TYPE(tensor.is_cpu() && tensor.scalar_type() == at::kLong && tensor.is_contiguous(), "argument '", name,
                   "' must be a contiguous int64 tensor on the CPU");
  TORCH_CHECK_VALUE(tensor.numel() == size, "argument '", name, "' must have ", size, " elements, got ", tensor.numel());
  return tensor.const_data_ptr<int64_t>();
}

void check_ranks(const GroupPtr& group, at::IntArrayRef experts_of_rank) {
  TORCH_CHECK_VALUE(static_cast<int>(experts_of_rank.size()) == group->size(), "argument 'experts_of_rank' needs a count for each of ",
                    group->size(), " ranks, got ", experts_of_rank.size());
  for (const int64_t count : experts_of_rank) TORCH_CHECK_VALUE(count >= 0, "argument 'experts_of_rank' has the negative count ", count);
}

int64_t sum(at::IntArrayRef values) { return std::accumulate(values.begin(), values.end(), int64_t{0}); }

Plan make_plan(
    const GroupPtr& group,
    const Tensor& sent,
    const Tensor& received,
    const Tensor& order,
    at::IntArrayRef experts_of_rank) {
  check_ranks(group, experts_of_rank);
  const int64_t experts = sum(experts_of_rank), ranks = group->size(), local = experts_of_rank[group->rank];
  const auto* rows_of = counts_in(sent, experts, "sent");
  const auto* placed = counts_in(order, experts, "order");
  const auto* arriving = counts_in(received, ranks * local, "received");

  Plan plan;
  Counts offsets(experts + 1, 0);
  for (int64_t expert = 0; expert < experts; ++expert) {
    TORCH_CHECK_VALUE(rows_of[expert] >= 0, "argument 'sent' has the negative count ", rows_of[expert]);
    offsets[expert + 1] = offsets[expert] + rows_of[expert];
  }
  int64_t position = 0;
  for (int64_t rank = 0; rank < ranks; ++rank) {
    const int64_t begin = plan.sent;
    for (int64_t i = 0; i < experts_of_rank[rank]; ++i) {
      const int64_t expert = placed[position++];
      TORCH_CHECK_INDEX(expert >= 0 && expert < experts, "argument 'order' names expert ", expert, " of ", experts);
      add_block(plan.leave, offsets[expert], plan.sent, rows_of[expert]);
      plan.sent += rows_of[expert];
    }
    plan.send_rows.push_back(plan.sent - begin);
  }
  TORCH_CHECK_VALUE(plan.sent == offsets[experts], "argument 'order' names an expert twice");

  Counts slots(local + 1, 0);
  for (int64_t rank = 0; rank < ranks; ++rank) {
    int64_t total = 0;
    for (int64_t slot = 0; slot < local; ++slot) {
      const int64_t count = arriving[rank * local + slot];
      TORCH_CHECK_VALUE(count >= 0, "argument 'received' has the negative count ", count);
      slots[slot + 1] += count;
      total += count;
    }
    plan.receive_rows.push_back(total);
  }
  std::partial_sum(slots.begin(), slots.end(), slots.begin());
  for (int64_t rank = 0; rank < ranks; ++rank) {
    for (int64_t slot = 0; slot < local; ++slot) {
      const int64_t count = arriving[rank * local + slot];
      add_block(plan.arrive, plan.received, slots[slot], count);
      slots[slot] += count;
      plan.received += count;
    }
  }
  return plan;
}

Tensor rows_like(const Tensor& tensor, int64_t rows) {
  auto sizes = tensor.sizes().vec();
  sizes[0] = rows;
  return at::empty(sizes, tensor.options());
}

// rows [≥ sent, …] in expert order → [received, …]
WorkPtr scatter(const GroupPtr& group, const Tensor& rows, const Plan& plan) {
  const Tensor dense = rows.contiguous();
  Tensor leaving = dense.narrow(0, 0, plan.sent);
  if (!is_identity(plan.leave)) {
    leaving = rows_like(dense, plan.sent);
    copy_blocks(dense, leaving, plan.leave);
  }
  if (is_identity(plan.arrive)) {
    return all_to_all(group, leaving, plan.send_rows, plan.receive_rows, "global_scatter");
  }
  const Tensor result = rows_like(dense, plan.received);
  return all_to_all(
      group, leaving, plan.send_rows, plan.receive_rows, "global_scatter", {}, result,
      [result, blocks = plan.arrive](const Tensor& received) { copy_blocks(received, result, blocks); });
}

// rows [received, …] by local expert → [total_rows, …] in expert order, zeros after the `sent` rows
WorkPtr gather(const GroupPtr& group, const Tensor& rows, const Plan& plan, int64_t total_rows) {
  Tensor leaving = rows.contiguous();
  if (!is_identity(plan.arrive)) {
    const Tensor dense = leaving;
    leaving = rows_like(dense, plan.received);
    copy_blocks(dense, leaving, inverse(plan.arrive));
  }
  const Tensor result = rows_like(leaving, total_rows);
  result.narrow(0, plan.sent, total_rows - plan.sent).zero_();
  const Tensor filled = result.narrow(0, 0, plan.sent);
  if (is_identity(plan.leave)) {
    return all_to_all(group, leaving, plan.receive_rows, plan.send_rows, "global_gather", filled, result);
  }
  return all_to_all(
      group, leaving, plan.receive_rows, plan.send_rows, "global_gather", {}, result,
      [filled, blocks = inverse(plan.leave)](const Tensor& received) { copy_blocks(received, filled, blocks); });
}

// Scatter and gather are each other's transpose.
struct Exchange : Function<Exchange> {
  static Tensor forward(
      AutogradContext* context,
      const Tensor& rows,
      const GroupPtr& group,
      const std::shared_ptr<const Plan>& plan,
      bool there,
      int64_t total_rows,
      WorkSlot slot) {
    at::AutoDispatchBelowADInplaceOrView guard;
    context->saved_data["group"] = c10::IValue::make_capsule(group);
    context->saved_data["plan"] = c10::IValue::make_capsule(c10::make_intrusive<SavedPlan>(plan));
    context->saved_data["there"] = there;
    context->saved_data["rows"] = total_rows;
    return take(there ? scatter(group, rows, *plan) : gather(group, rows, *plan, total_rows), slot);
  }

  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    const auto group = c10::static_intrusive_pointer_cast<Group>(context->saved_data["group"].toCapsule());
    const auto saved = c10::static_intrusive_pointer_cast<SavedPlan>(context->saved_data["plan"].toCapsule());
    const Tensor grad = Exchange::apply(
        grads[0], group, saved->plan, !context->saved_data["there"].toBool(), context->saved_data["rows"].toInt(), WorkSlot());
    return {grad, Tensor(), Tensor(), Tensor(), Tensor(), Tensor()};
  }

 private:
  struct SavedPlan : torch::CustomClassHolder {
    explicit SavedPlan(std::shared_ptr<const Plan> shared) : plan(std::move(shared)) {}
    std::shared_ptr<const Plan> plan;
  };
};

Tensor exchange(
    bool there,
    const Tensor& rows,
    const Tensor& sent,
    const Tensor& received,
    const Tensor& order,
    at::IntArrayRef experts_of_rank,
    int64_t total_rows,
    int64_t group_id,
    WorkSlot slot) {
  const auto group = group_of(group_id);
  auto plan = std::make_shared<const Plan>(make_plan(group, sent, received, order, experts_of_rank));
  const char* name = there ? "global_scatter" : "global_gather";
  TORCH_CHECK_VALUE(rows.dim() >= 1, name, ": argument 'rows' needs at least one dimension");
  if (there) {
    total_rows = rows.size(0);
    TORCH_CHECK_VALUE(total_rows >= plan->sent, name, ": argument 'rows' has ", total_rows, " rows, the counts add up to ", plan->sent);
  } else {
    TORCH_CHECK_VALUE(
        rows.size(0) == plan->received, name, ": argument 'rows' has ", rows.size(0), " rows, ", plan->received, " were received");
    TORCH_CHECK_VALUE(total_rows >= plan->sent, name, ": argument 'total_rows' is ", total_rows, ", but ", plan->sent, " rows come back");
  }
  return Exchange::apply(rows, group, std::move(plan), there, total_rows, slot);
}

Tensor global_scatter(
    const Tensor& rows,
    const Tensor& sent,
    const Tensor& received,
    const Tensor& order,
    at::IntArrayRef experts_of_rank,
    int64_t group) {
  return exchange(true, rows, sent, received, order, experts_of_rank, 0, group, nullptr);
}

Tensor global_gather(
    const Tensor& rows,
    const Tensor& sent,
    const Tensor& received,
    const Tensor& order,
    at::IntArrayRef experts_of_rank,
    int64_t total_rows,
    int64_t group) {
  return exchange(false, rows, sent, received, order, experts_of_rank, total_rows, group, nullptr);
}

std::tuple<Tensor, int64_t> start_global_scatter(
    const Tensor& rows,
    const Tensor& sent,
    const Tensor& received,
    const Tensor& order,
    at::IntArrayRef experts_of_rank,
    int64_t group) {
  int64_t work = 0;
  const Tensor result = exchange(true, rows, sent, received, order, experts_of_rank, 0, group, &work);
  return {result, work};
}

std::tuple<Tensor, int64_t> start_global_gather(
    const Tensor& rows,
    const Tensor& sent,
    const Tensor& received,
    const Tensor& order,
    at::IntArrayRef experts_of_rank,
    int64_t total_rows,
    int64_t group) {
  int64_t work = 0;
  const Tensor result = exchange(false, rows, sent, received, order, experts_of_rank, total_rows, group, &work);
  return {result, work};
}

// counts [N] of rows for each expert here → the same on the CPU, what each rank sends to each local expert [W, E] on the CPU, and
// the offsets [E + 1] of the local experts' rows on the device of the counts.
std::tuple<Tensor, Tensor, Tensor> exchange_counts(
    const Tensor& counts, const Tensor& order, at::IntArrayRef experts_of_rank, int64_t group_id) {
  const auto group = group_of(group_id);
  check_ranks(group, experts_of_rank);
  const int64_t experts = sum(experts_of_rank), ranks = group->size(), local = experts_of_rank[group->rank];
  TORCH_CHECK_TYPE(counts.scalar_type() == at::kLong, "exchange_counts: argument 'counts' must have the dtype int64");
  TORCH_CHECK_VALUE(counts.dim() == 1 && counts.size(0) == experts, "exchange_counts: argument 'counts' must have the shape [", experts,
                    "], one count an expert");
  counts_in(order, experts, "order");
  at::AutoDispatchBelowADInplaceOrView guard;

  const Counts send_counts = experts_of_rank.vec(), receive_counts(ranks, local);
  Tensor sent, received;
  if (counts.is_cpu() || !group->transport->takes(counts.device())) {
    sent = counts.cpu().contiguous();
    received = all_to_all(group, sent.index_select(0, order), send_counts, receive_counts, "exchange_counts")->wait();
  } else {
    // On the device both ways, and one copy to the host for both results.
    const Tensor placed = counts.index_select(0, order.to(counts.device()));
    const Tensor arrived = all_to_all(group, placed, send_counts, receive_counts, "exchange_counts")->wait();
    const Tensor both = at::cat({counts, arrived}).cpu();
    sent = both.narrow(0, 0, experts).clone();
    received = both.narrow(0, experts, ranks * local).clone();
  }
  const Tensor offsets = at::zeros({local + 1}, at::kLong);
  auto* offset = offsets.data_ptr<int64_t>();
  const auto* count = received.const_data_ptr<int64_t>();
  for (int64_t slot = 0; slot < local; ++slot) {
    offset[slot + 1] = offset[slot];
    for (int64_t rank = 0; rank < ranks; ++rank) offset[slot + 1] += count[rank * local + slot];
  }
  return {sent, received.view({ranks, local}), offsets.to(counts.device())};
}

}  // namespace

#define FMOE_PLAN "Tensor sent, Tensor received, Tensor order, int[] experts_of_rank"

TORCH_LIBRARY_FRAGMENT(fmoe_comm, library) {
  library.def(
      "exchange_counts(Tensor counts, Tensor order, int[] experts_of_rank, int group)"
      " -> (Tensor sent, Tensor received, Tensor offsets)",
      exchange_counts);
  library.def("global_scatter(Tensor rows, " FMOE_PLAN ", int group) -> Tensor", global_scatter);
  library.def("global_gather(Tensor rows, " FMOE_PLAN ", int total_rows, int group) -> Tensor", global_gather);
  library.def("start_global_scatter(Tensor rows, " FMOE_PLAN ", int group) -> (Tensor result, int work)", start_global_scatter);
  library.def(
      "start_global_gather(Tensor rows, " FMOE_PLAN ", int total_rows, int group) -> (Tensor result, int work)",
      start_global_gather);
}

}  // namespace fmoe::comm
