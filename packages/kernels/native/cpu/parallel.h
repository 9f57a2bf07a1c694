// How finely loops over rows or tokens are cut into shares for threads.
#pragma once

#include <ATen/Parallel.h>

#include <algorithm>
#include <cstdint>

namespace fmoe::cpu {

// A share that moves fewer elements than this costs less than waking a thread.
constexpr int64_t kMinimumElements = 1 << 15;

// Grain for at::parallel_for over items of `elements` elements each.
inline int64_t grain(int64_t elements) {
  return kMinimumElements / std::max<int64_t>(1, elements) + 1;
}

}  // namespace fmoe::cpu
