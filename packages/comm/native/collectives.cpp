#include "collectives.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/view_as_real.h>
#include <c10/core/ScalarType.h>

#include <numeric>

#include "debug.h"

namespace fmoe::comm {

namespace {

std::string shape_text(const Tensor& tensor) {
  std::string text = "[";
  for (const int64_t size : tensor.sizes()) text += (text.size() > 1 ? ", " : "") + std::to_string(size);
  return text + "]";
}

// The tensor as the transport takes it: itself, or a copy.
Tensor staged(const Transport& transport, const Tensor& tensor) {
  const Tensor dense = tensor.contiguous();
  return transport.takes(dense.device()) ? dense : transport.make_stage(dense).copy_(dense);
}

// Room for a result where the transport can write it; `result` itself where that is possible.
Tensor room(const Transport& transport, const Tensor& result) {
  if (!transport.takes(result.device())) return transport.make_stage(result);
  return result.is_contiguous() ? result : at::empty(result.sizes(), result.options());
}

// How a reduction is carried out: in which dtype, with what, and what follows it.
struct Reduction {
  at::ScalarType dtype;
  ReduceOp op;
  bool divide;
};

Reduction plan_reduction(const char* operation, const Transport& transport, at::ScalarType dtype, ReduceOp op) {
  const bool floating = at::isFloatingType(dtype) || at::isComplexType(dtype);
  TORCH_CHECK_TYPE(op != ReduceOp::mean || floating, operation, ": the mean of ", c10::getDtypeNames(dtype).first,
                   " is not defined, expected a floating-point dtype");
  TORCH_CHECK_TYPE(!at::isComplexType(dtype) || (op != ReduceOp::min && op != ReduceOp::max), operation,
                   ": complex dtypes have no order");
  if (dtype == at::kBool) {
    // True and true is true: as the logical operators, whose bytes stay 0 and 1.
    const bool any = op == ReduceOp::sum || op == ReduceOp::max;
    return {dtype, any ? ReduceOp::max : ReduceOp::min, false};
  }
  if (transport.reduces(dtype, op)) return {dtype, op, false};
  const ReduceOp simple = op == ReduceOp::mean ? ReduceOp::sum : op;
  // float16, bfloat16 and narrower ones are added up in float32 and rounded once; integers may be too narrow for a transport.
  const bool small = dtype == at::kShort || dtype == at::ScalarType::UInt16;
  const auto wide = transport.reduces(dtype, simple) ? dtype : small ? at::kInt : at::kFloat;
  TORCH_CHECK_TYPE(wide == dtype || small || at::isFloatingType(dtype), operation, ": the ", transport.name(), " transport cannot combine ",
                   c10::getDtypeNames(dtype).first);
  return {wide, simple, op == ReduceOp::mean};
}

// Complex numbers as pairs, for a transport that knows none; sums of them are sums of their parts.
Tensor parts_of(const Transport& transport, const Tensor& data, ReduceOp op) {
  const bool sums = op == ReduceOp::sum || op == ReduceOp::mean;
  const bool split = at::isComplexType(data.scalar_type()) && sums && !transport.reduces(data.scalar_type(), ReduceOp::sum);
  return split ? at::view_as_real(data) : data;
}

void check_rows(const char* operation, const char* argument, const GroupPtr& group, const Counts& rows) {
  TORCH_CHECK_VALUE(rows.size() == group->members.size(), operation, ": argument '", argument, "' needs a count for each of ",
                    group->size(), " ranks, got ", rows.size());
  for (const int64_t count : rows) {
    TORCH_CHECK_VALUE(count >= 0, operation, ": argument '", argument, "' has the negative count ", count);
  }
}

void check_total(const char* operation, const char* argument, const Tensor& tensor, int64_t rows) {
  TORCH_CHECK_VALUE(tensor.dim() >= 1 && tensor.size(0) == rows, operation, ": argument '", argument, "' says ", rows,
                    " rows, but the shape is ", shape_text(tensor));
}

void check_peer(const char* operation, const char* argument, const GroupPtr& group, int64_t peer) {
  TORCH_CHECK_INDEX(peer >= 0 && peer < group->size(), operation, ": argument '", argument, "': there is no rank ", peer,
                    " in a group of ", group->size());
}

int64_t total(const Counts& rows) { return std::accumulate(rows.begin(), rows.end(), int64_t{0}); }

Tensor rows_like(const Tensor& tensor, int64_t rows) {
  auto sizes = tensor.sizes().vec();
  sizes[0] = rows;
  return at::empty(sizes, tensor.options());
}

void check_tag(const char* operation, int64_t tag) {
  TORCH_CHECK_VALUE(tag >= 0 && tag < 16384, operation, ": a tag must be within 0 and 16383, got ", tag);
}

}  // namespace

ReduceOp parse_reduce_op(std::string_view name) {
  if (name == "sum") return ReduceOp::sum;
  if (name == "mean") return ReduceOp::mean;
  if (name == "product") return ReduceOp::product;
  if (name == "min") return ReduceOp::min;
  if (name == "max") return ReduceOp::max;
  TORCH_CHECK_VALUE(false, "argument 'op': unknown reduction '", std::string(name), "', expected one of sum, mean, product, min, max");
}

WorkPtr all_reduce(const GroupPtr& group, const Tensor& whole, ReduceOp op) {
  const char* label = "all_reduce_";
  auto& transport = *group->transport;
  const Tensor data = parts_of(transport, whole, op);
  const auto plan = plan_reduction(label, transport, data.scalar_type(), op);
  compare_ranks(group, {label, whole, false, static_cast<int64_t>(op), {}, {}});
  const int64_t sequence = group->enter(label);
  const Tensor buffer = staged(transport, data.to(plan.dtype));
  auto request = begin(group, label, sequence, [&] { return transport.all_reduce(buffer, plan.op); });
  const double divisor = plan.divide ? group->size() : 1;
  const bool in_place = buffer.is_same(data) || buffer.data_ptr() == data.data_ptr();
  auto finish = [buffer, data, divisor, in_place] {
    if (divisor != 1) buffer.div_(divisor);
    if (!in_place) data.copy_(buffer);
  };
  return c10::make_intrusive<Work>(
      group, label, sequence, std::move(request), std::vector<Tensor>{buffer}, whole, std::move(finish));
}

WorkPtr reduce_scatter(const GroupPtr& group, const Tensor& input, const Counts& rows, ReduceOp op) {
  const char* label = "reduce_scatter";
  auto& transport = *group->transport;
  check_rows(label, "rows_of_rank", group, rows);
  check_total(label, "rows_of_rank", input, total(rows));
  const Tensor parts = parts_of(transport, input, op);
  const auto plan = plan_reduction(label, transport, parts.scalar_type(), op);
  compare_ranks(group, {label, input, false, static_cast<int64_t>(op), rows, {}});
  const int64_t sequence = group->enter(label);
  const Tensor source = staged(transport, parts.to(plan.dtype));
  const Tensor whole = rows_like(input, rows[group->rank]);
  const Tensor result = parts.is_same(input) ? whole : at::view_as_real(whole);
  const Tensor target = plan.dtype == parts.scalar_type() ? room(transport, result) : rows_like(source, rows[group->rank]);
  auto request = begin(group, label, sequence, [&] { return transport.reduce_scatter(source, target, rows, plan.op); });
  const double divisor = plan.divide ? group->size() : 1;
  auto finish = [target, result, divisor] {
    if (divisor != 1) target.div_(divisor);
    if (!target.is_same(result)) result.copy_(target);
  };
  return c10::make_intrusive<Work>(
      group, label, sequence, std::move(request), std::vector<Tensor>{source, target}, whole, std::move(finish));
}

WorkPtr all_gather(const GroupPtr& group, const Tensor& input, const Counts& rows, const char* label) {
  auto& transport = *group->transport;
  check_rows(label, "rows_of_rank", group, rows);
  check_total(label, "rows_of_rank", input, rows[group->rank]);
  compare_ranks(group, {label, input, true, 0, rows, {}});
  const int64_t sequence = group->enter(label);
  const Tensor source = staged(transport, input);
  const Tensor result = rows_like(input, total(rows));
  const Tensor target = room(transport, result);
  auto request = begin(group, label, sequence, [&] { return transport.all_gather(source, target, rows); });
  auto finish = [target, result] {
    if (!target.is_same(result)) result.copy_(target);
  };
  return c10::make_intrusive<Work>(
      group, label, sequence, std::move(request), std::vector<Tensor>{source, target}, result, std::move(finish));
}

WorkPtr broadcast(const GroupPtr& group, const Tensor& data, int64_t root) {
  const char* label = "broadcast_";
  auto& transport = *group->transport;
  check_peer(label, "root", group, root);
  compare_ranks(group, {label, data, false, root, {}, {}});
  const int64_t sequence = group->enter(label);
  const Tensor buffer = staged(transport, data);
  auto request = begin(group, label, sequence, [&] { return transport.broadcast(buffer, static_cast<int>(root)); });
  const bool in_place = buffer.data_ptr() == data.data_ptr();
  auto finish = [buffer, data, in_place] {
    if (!in_place) data.copy_(buffer);
  };
  return c10::make_intrusive<Work>(
      group, label, sequence, std::move(request), std::vector<Tensor>{buffer}, data, std::move(finish));
}

WorkPtr all_to_all(
    const GroupPtr& group,
    const Tensor& input,
    const Counts& send_rows,
    const Counts& receive_rows,
    const char* label,
    Tensor received,
    Tensor result,
    std::function<void(const Tensor&)> finish) {
  auto& transport = *group->transport;
  check_rows(label, "send_rows", group, send_rows);
  check_rows(label, "receive_rows", group, receive_rows);
  check_total(label, "send_rows", input, total(send_rows));
  TORCH_CHECK_VALUE(send_rows[group->rank] == receive_rows[group->rank], label, ": argument 'receive_rows' says ",
                    receive_rows[group->rank], " rows from this rank itself, which sends itself ", send_rows[group->rank]);
  compare_ranks(group, {label, input, true, 0, send_rows, receive_rows});
  const int64_t sequence = group->enter(label);
  const Tensor source = staged(transport, input);
  if (!received.defined()) received = rows_like(input, total(receive_rows));
  const Tensor target = room(transport, received);
  auto request = begin(group, label, sequence, [&] { return transport.all_to_all(source, target, send_rows, receive_rows); });
  if (!result.defined()) result = received;
  auto arrive = [target, received, finish = std::move(finish)] {
    if (!target.is_same(received)) received.copy_(target);
    if (finish) finish(received);
  };
  return c10::make_intrusive<Work>(
      group, label, sequence, std::move(request), std::vector<Tensor>{source, target}, result, std::move(arrive));
}

WorkPtr send(const GroupPtr& group, const Tensor& data, int64_t to, int64_t tag) {
  check_peer("send", "to", group, to);
  check_tag("send", tag);
  TORCH_CHECK_VALUE(to != group->rank, "send: argument 'to' is this rank itself");
  const int64_t sequence = group->enter("send", false);
  const std::string label = "send to rank " + std::to_string(to);
  const int peer = static_cast<int>(to);
  const Tensor buffer = staged(*group->transport, data);
  auto request = begin(
      group, label, sequence, [&] { return group->transport->send(buffer, peer, static_cast<int>(tag)); }, peer);
  return c10::make_intrusive<Work>(
      group, label, sequence, std::move(request), std::vector<Tensor>{buffer}, data, nullptr, peer);
}

WorkPtr receive(const GroupPtr& group, const Tensor& data, int64_t from, int64_t tag) {
  check_peer("receive_", "from", group, from);
  check_tag("receive_", tag);
  TORCH_CHECK_VALUE(from != group->rank, "receive_: argument 'from' is this rank itself");
  const int64_t sequence = group->enter("receive_", false);
  const std::string label = "receive_ from rank " + std::to_string(from);
  const int peer = static_cast<int>(from);
  const Tensor buffer = room(*group->transport, data);
  auto request = begin(
      group, label, sequence, [&] { return group->transport->receive(buffer, peer, static_cast<int>(tag)); }, peer);
  auto finish = [buffer, data] {
    if (!buffer.is_same(data)) data.copy_(buffer);
  };
  return c10::make_intrusive<Work>(
      group, label, sequence, std::move(request), std::vector<Tensor>{buffer}, data, std::move(finish), peer);
}

WorkPtr barrier(const GroupPtr& group) {
  compare_ranks(group, {"barrier", {}, false, 0, {}, {}});
  const int64_t sequence = group->enter("barrier");
  auto request = begin(group, "barrier", sequence, [&] { return group->transport->barrier(); });
  return c10::make_intrusive<Work>(
      group, "barrier", sequence, std::move(request), std::vector<Tensor>{}, Tensor());
}

}  // namespace fmoe::comm
