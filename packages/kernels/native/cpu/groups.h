// Rows grouped by expert, and how they are shared out between threads.
#pragma once

#include "cpu/slots.h"

#include <ATen/Parallel.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/Tensor.h>

#include <algorithm>
#include <cstdint>
#include <utility>
#include <vector>

namespace fmoe::cpu {

// A share below about 2^17 multiply-adds (a few microseconds) is not worth a thread.
constexpr int64_t kMinimumShare = 1 << 17;

// Half-precision operands are widened, so that every sum is in float32 and rounds once. It is also the faster way for
// ragged groups: without bfloat16 instructions libtorch's half GEMM is several times slower than its float32 one, and
// with them oneDNN generates code for each new row count, which costs a millisecond or more.
inline bool needs_widening(at::ScalarType dtype) {
  return dtype == at::kHalf || dtype == at::kBFloat16;
}

struct Groups {
  std::vector<int64_t> offsets;  // [E + 1]

  Groups(const char* op, const Tensor& given, int64_t row_count) {
    const Tensor values = as_indices(given);
    const auto* begin = values.const_data_ptr<int64_t>();
    offsets.assign(begin, begin + values.numel());
    check_offset_values(op, begin, experts(), row_count);
  }
  int64_t experts() const { return static_cast<int64_t>(offsets.size()) - 1; }
  int64_t rows() const { return offsets.back(); }

  // Experts [first, last) alone, their rows counted from 0.
  Groups slice(int64_t first, int64_t last) const {
    std::vector<int64_t> part(offsets.begin() + first, offsets.begin() + last + 1);
    for (int64_t& offset : part) {
      offset -= offsets[first];
    }
    return Groups(std::move(part));
  }

 private:
  explicit Groups(std::vector<int64_t> offsets) : offsets(std::move(offsets)) {}
};

// Calls body(wave, first_expert, first_row) for runs of neighbouring experts, each just long enough to hold `wave_rows`
// rows; the last may hold fewer.
template <typename Body>
void for_waves(const Groups& groups, int64_t wave_rows, const Body& body) {
  for (int64_t first = 0, last = 0; first < groups.experts(); first = last) {
    do {
      ++last;
    } while (last < groups.experts() && groups.offsets[last] - groups.offsets[first] < wave_rows);
    body(groups.slice(first, last), first, groups.offsets[first]);
  }
}

// Calls body(expert, first_row, row_count) for the experts' parts of each share of the rows.
template <typename Body>
void for_row_shares(const Groups& groups, int64_t cost_of_row, const Body& body) {
  const int64_t grain = std::max<int64_t>(1, kMinimumShare / std::max<int64_t>(1, cost_of_row));
  const auto& offset = groups.offsets;
  at::parallel_for(0, groups.rows(), grain, [&](int64_t first, int64_t last) {
    // Worker threads do not inherit the caller's dispatch state.
    const at::AutoDispatchBelowADInplaceOrView guard;
    for (int64_t expert = 0; expert < groups.experts(); ++expert) {
      const int64_t begin = std::max(first, offset[expert]), end = std::min(last, offset[expert + 1]);
      if (begin < end) {
        body(expert, begin, end - begin);
      }
    }
  });
}

}  // namespace fmoe::cpu
