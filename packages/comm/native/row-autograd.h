// Collectives on rows with their derivatives: each backward is a collective again, so derivatives of any order work, and every
// member of the group must run it.
#pragma once

#include "collectives.h"

namespace fmoe::comm {

// Where operators put the number of the operation that they begin, for the forms that do not wait.
using WorkSlot = int64_t*;

Tensor differentiable_all_to_all(
    const Tensor& input, at::IntArrayRef send_rows, at::IntArrayRef receive_rows, int64_t group, WorkSlot slot);
// `gradient` says what the members' gradients of the gathered rows are: parts of a sum, of a mean, or all the same.
Tensor differentiable_all_gather(
    const Tensor& input, at::IntArrayRef rows, std::string_view gradient, int64_t group, WorkSlot slot);
Tensor differentiable_reduce_scatter(
    const Tensor& input, at::IntArrayRef rows, std::string_view op, int64_t group, WorkSlot slot);

// The result of an operation that was begun, now or, with a slot, once its number has been waited for.
Tensor take(WorkPtr work, WorkSlot slot);

}  // namespace fmoe::comm
