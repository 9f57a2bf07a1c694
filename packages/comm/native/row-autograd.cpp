#include "row-autograd.h"

#include <ATen/MemoryOverlap.h>
#include <ATen/core/grad_mode.h>
#include <c10/core/ScalarType.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include <numeric>

namespace fmoe::comm {

namespace {

using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::variable_list;

Counts counts_of(at::IntArrayRef rows) { return rows.vec(); }

// The group of a backward node: held by it, whether or not the program still has it.
void save_group(AutogradContext* context, const GroupPtr& group) {
  context->saved_data["group"] = c10::IValue::make_capsule(group);
}

GroupPtr saved_group(AutogradContext* context) {
  return c10::static_intrusive_pointer_cast<Group>(context->saved_data["group"].toCapsule());
}

Counts saved_counts(AutogradContext* context, const char* name) { return context->saved_data[name].toIntVector(); }

bool records_gradients(const Tensor& input) { return at::GradMode::is_enabled() && input.requires_grad(); }

struct AllToAll : Function<AllToAll> {
  static Tensor forward(
      AutogradContext* context,
      const Tensor& input,
      const GroupPtr& group,
      const Counts& send_rows,
      const Counts& receive_rows,
      WorkSlot slot) {
    at::AutoDispatchBelowADInplaceOrView guard;
    save_group(context, group);
    context->saved_data["send"] = send_rows;
    context->saved_data["receive"] = receive_rows;
    return take(all_to_all(group, input, send_rows, receive_rows), slot);
  }

  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    const Tensor grad = AllToAll::apply(
        grads[0], saved_group(context), saved_counts(context, "receive"), saved_counts(context, "send"), WorkSlot());
    return {grad, Tensor(), Tensor(), Tensor(), Tensor()};
  }
};

struct ReduceScatter;

enum class Gradient { sum, mean, slice };

Gradient parse_gradient(std::string_view name) {
  if (name == "sum") return Gradient::sum;
  if (name == "mean") return Gradient::mean;
  if (name == "slice") return Gradient::slice;
  TORCH_CHECK_VALUE(false, "argument 'gradient': unknown choice '", std::string(name), "', expected one of sum, mean, slice");
}

struct AllGather : Function<AllGather> {
  static Tensor forward(
      AutogradContext* context,
      const Tensor& input,
      const GroupPtr& group,
      const Counts& rows,
      Gradient gradient,
      WorkSlot slot) {
    at::AutoDispatchBelowADInplaceOrView guard;
    save_group(context, group);
    context->saved_data["rows"] = rows;
    context->saved_data["gradient"] = static_cast<int64_t>(gradient);
    return take(all_gather(group, input, rows), slot);
  }

  static variable_list backward(AutogradContext* context, const variable_list& grads);
};

struct ReduceScatter : Function<ReduceScatter> {
  static Tensor forward(
      AutogradContext* context,
      const Tensor& input,
      const GroupPtr& group,
      const Counts& rows,
      ReduceOp op,
      WorkSlot slot) {
    at::AutoDispatchBelowADInplaceOrView guard;
    save_group(context, group);
    context->saved_data["rows"] = rows;
    context->saved_data["mean"] = op == ReduceOp::mean;
    context->saved_data["linear"] = op == ReduceOp::mean || op == ReduceOp::sum;
    return take(reduce_scatter(group, input, rows, op), slot);
  }

  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    TORCH_CHECK_NOT_IMPLEMENTED(
        context->saved_data["linear"].toBool(), "reduce_scatter: only sum and mean have a derivative");
    const auto group = saved_group(context);
    Tensor grad = AllGather::apply(grads[0], group, saved_counts(context, "rows"), Gradient::sum, WorkSlot());
    if (context->saved_data["mean"].toBool()) grad = grad.div(static_cast<double>(group->size()));
    return {grad, Tensor(), Tensor(), Tensor(), Tensor()};
  }
};

variable_list AllGather::backward(AutogradContext* context, const variable_list& grads) {
  const auto group = saved_group(context);
  const auto rows = saved_counts(context, "rows");
  const auto gradient = static_cast<Gradient>(context->saved_data["gradient"].toInt());
  Tensor grad;
  if (gradient == Gradient::slice) {
    int64_t begin = 0;
    for (int member = 0; member < group->rank; ++member) begin += rows[member];
    grad = grads[0].narrow(0, begin, rows[group->rank]);
  } else {
    const auto op = gradient == Gradient::mean ? ReduceOp::mean : ReduceOp::sum;
    grad = ReduceScatter::apply(grads[0], group, rows, op, WorkSlot());
  }
  return {grad, Tensor(), Tensor(), Tensor(), Tensor()};
}

// My rows of a tensor that all members have. The gradient of the whole is everybody's gradients, one after the other.
struct SliceRows : Function<SliceRows> {
  static Tensor forward(AutogradContext* context, const Tensor& input, const GroupPtr& group, const Counts& rows) {
    at::AutoDispatchBelowADInplaceOrView guard;
    save_group(context, group);
    context->saved_data["rows"] = rows;
    int64_t begin = 0;
    for (int member = 0; member < group->rank; ++member) begin += rows[member];
    return input.narrow(0, begin, rows[group->rank]).clone(at::MemoryFormat::Contiguous);
  }

  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    // What the members computed from their slices adds to one loss that all share, so their gradients are parts of one.
    const Tensor grad =
        AllGather::apply(grads[0], saved_group(context), saved_counts(context, "rows"), Gradient::slice, WorkSlot());
    return {grad, Tensor(), Tensor()};
  }
};

Tensor slice_rows(const Tensor& input, at::IntArrayRef rows, int64_t group_id) {
  const auto group = group_of(group_id);
  const auto counts = counts_of(rows);
  int64_t total = 0;
  for (const int64_t count : counts) {
    TORCH_CHECK_VALUE(count >= 0, "slice_rows: argument 'rows_of_rank' has the negative count ", count);
    total += count;
  }
  TORCH_CHECK_VALUE(
      static_cast<int>(counts.size()) == group->size(), "slice_rows: argument 'rows_of_rank' needs a count for each of ",
      group->size(), " ranks, got ", counts.size());
  TORCH_CHECK_VALUE(input.dim() >= 1 && input.size(0) == total, "slice_rows: argument 'rows_of_rank' says ", total,
                    " rows, which is not the first size of the tensor's shape");
  return SliceRows::apply(input, group, counts);
}

// Into a tensor of the caller, which is no part of a graph.
void all_to_all_into(
    const Tensor& input,
    at::IntArrayRef send_rows,
    at::IntArrayRef receive_rows,
    int64_t group,
    const Tensor& out,
    WorkSlot slot) {
  TORCH_CHECK(
      !records_gradients(input) && !records_gradients(out),
      "all_to_all: argument 'out' cannot receive rows of a tensor that requires grad, nor be one; use noGrad()");
  auto sizes = input.sizes().vec();
  if (!sizes.empty()) sizes[0] = std::accumulate(receive_rows.begin(), receive_rows.end(), int64_t{0});
  TORCH_CHECK_VALUE(out.sizes() == sizes, "all_to_all: argument 'out' must have the shape ", at::IntArrayRef(sizes), ", got ", out.sizes());
  TORCH_CHECK_TYPE(
      out.scalar_type() == input.scalar_type(), "all_to_all: argument 'out' must have the dtype ",
      c10::getDtypeNames(input.scalar_type()).first, " of the rows, got ", c10::getDtypeNames(out.scalar_type()).first);
  TORCH_CHECK(
      out.device() == input.device(), "all_to_all: expected all tensors to be on the same device, argument 'out' is on ",
      out.device(), ", the rows are on ", input.device());
  at::assert_no_internal_overlap(out);
  at::assert_no_overlap(out, input);
  out.unsafeGetTensorImpl()->bump_version();
  at::AutoDispatchBelowADInplaceOrView guard;
  take(all_to_all(group_of(group), input, counts_of(send_rows), counts_of(receive_rows), "all_to_all", out), slot);
}

Tensor& all_to_all_out(
    const Tensor& input, at::IntArrayRef send_rows, at::IntArrayRef receive_rows, int64_t group, Tensor& out) {
  all_to_all_into(input, send_rows, receive_rows, group, out, nullptr);
  return out;
}

int64_t start_all_to_all_out(
    const Tensor& input, at::IntArrayRef send_rows, at::IntArrayRef receive_rows, int64_t group, Tensor& out) {
  int64_t work = 0;
  all_to_all_into(input, send_rows, receive_rows, group, out, &work);
  return work;
}

}  // namespace

Tensor take(WorkPtr work, WorkSlot slot) {
  if (slot == nullptr) return work->wait();
  const Tensor result = work->result();
  *slot = add_work(std::move(work));
  return result;
}

Tensor differentiable_all_to_all(
    const Tensor& input, at::IntArrayRef send_rows, at::IntArrayRef receive_rows, int64_t group, WorkSlot slot) {
  if (!records_gradients(input)) {
    // A node that nobody needs takes as long as to send a small message.
    at::AutoDispatchBelowADInplaceOrView guard;
    return take(all_to_all(group_of(group), input, counts_of(send_rows), counts_of(receive_rows)), slot);
  }
  return AllToAll::apply(input, group_of(group), counts_of(send_rows), counts_of(receive_rows), slot);
}

Tensor differentiable_all_gather(
    const Tensor& input, at::IntArrayRef rows, std::string_view gradient, int64_t group, WorkSlot slot) {
  return AllGather::apply(input, group_of(group), counts_of(rows), parse_gradient(gradient), slot);
}

Tensor differentiable_reduce_scatter(
    const Tensor& input, at::IntArrayRef rows, std::string_view op, int64_t group, WorkSlot slot) {
  return ReduceScatter::apply(input, group_of(group), counts_of(rows), parse_reduce_op(op), slot);
}

TORCH_LIBRARY_FRAGMENT(fmoe_comm, library) {
  library.def("slice_rows(Tensor tensor, int[] rows_of_rank, int group) -> Tensor", slice_rows);
  library.def(
      "all_to_all.out(Tensor tensor, int[] send_rows, int[] receive_rows, int group, *, Tensor(a!) out) -> Tensor(a!)",
      all_to_all_out);
  library.def(
      "start_all_to_all.out(Tensor tensor, int[] send_rows, int[] receive_rows, int group, *, Tensor(a!) out) -> int",
      start_all_to_all_out);
}

}  // namespace fmoe::comm
