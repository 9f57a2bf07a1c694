// The operations of a group, for every transport: arguments are checked, tensors brought to where and how the transport takes
// them, and what arrives is brought back. Shape letters: W members.
#pragma once

#include "work.h"

namespace fmoe::comm {

ReduceOp parse_reduce_op(std::string_view name);

// Each begins the operation. `label` names it in errors. Nothing here records gradients.
WorkPtr all_reduce(const GroupPtr& group, const Tensor& data, ReduceOp op);
WorkPtr reduce_scatter(const GroupPtr& group, const Tensor& input, const Counts& rows, ReduceOp op);
WorkPtr all_gather(
    const GroupPtr& group, const Tensor& input, const Counts& rows, const char* label = "all_gather");
WorkPtr broadcast(const GroupPtr& group, const Tensor& data, int64_t root);
// Rows arrive in `received`, a new tensor where none is given. Where `result` is given, `finish` fills it from them; else they are
// the result.
WorkPtr all_to_all(
    const GroupPtr& group,
    const Tensor& input,
    const Counts& send_rows,
    const Counts& receive_rows,
    const char* label = "all_to_all",
    Tensor received = {},
    Tensor result = {},
    std::function<void(const Tensor& received)> finish = nullptr);
WorkPtr send(const GroupPtr& group, const Tensor& data, int64_t to, int64_t tag);
WorkPtr receive(const GroupPtr& group, const Tensor& data, int64_t from, int64_t tag);
WorkPtr barrier(const GroupPtr& group);

}  // namespace fmoe::comm
