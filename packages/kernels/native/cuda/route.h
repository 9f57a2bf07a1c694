// The route plan on tensors, for the operators that sort slots.
#pragma once

#include "cuda/tensors.h"

namespace fmoe::cuda {

struct Plan {
  Tensor counts;    // [N]
  Tensor offsets;   // [N + 1]
  Tensor row_slot;  // [slots]
  Tensor slot_row;  // shape of the expert ids
};

// `expert_of` int64 and contiguous, of any shape, on the current device.
Plan make_plan(const char* op, const Tensor& expert_of, int64_t experts);

}  // namespace fmoe::cuda
