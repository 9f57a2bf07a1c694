// FMOE_COMM_DEBUG=1: the ranks compare what they are about to do before they do it.
#pragma once

#include "group.h"

namespace fmoe::comm {

struct Description {
  const char* operation;
  Tensor tensor;           // undefined where there is none
  bool rows_differ;        // whether its first size may be another on each rank
  int64_t detail;          // the reduction or the root
  Counts rows, more_rows;  // [W] or empty. With both, rows[r] here must be more_rows[rank] on rank r; alone they are the same everywhere
};

// Throws, on every rank, when the ranks do not agree: the message says which rank differs and how. Nothing without the setting.
void compare_ranks(const GroupPtr& group, const Description& description);

}  // namespace fmoe::comm
