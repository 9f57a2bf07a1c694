// A stable counting sort of the slots by expert.
//
// The slots are cut into equal pieces, one a thread. Each piece counts its slots of each expert; a sum over (expert,
// piece) in that order gives each piece the row where its slots of an expert begin. The order is therefore the same
// for any number of pieces: expert-major, and slots in ascending order inside an expert.
#include "checks.h"
#include "cpu/slots.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include <algorithm>
#include <tuple>
#include <vector>

namespace fmoe::cpu {

namespace {

// Below this a piece costs less than waking a thread for it.
constexpr int64_t kSlotsPerPiece = 1 << 15;

std::tuple<Tensor, Tensor, Tensor, Tensor> route_plan(const Tensor& top_idx, int64_t num_experts) {
  check_route_plan(top_idx, num_experts);
  const Tensor indices = as_indices(top_idx);
  const int64_t slot_count = indices.numel();
  const auto options = indices.options();
  Tensor counts = at::empty({num_experts}, options);
  Tensor offsets = at::empty({num_experts + 1}, options);
  Tensor row_slot = at::empty({slot_count}, options);
  Tensor slot_row = at::empty(indices.sizes(), options);

  const auto* expert_of = indices.const_data_ptr<int64_t>();
  auto* count = counts.mutable_data_ptr<int64_t>();
  auto* offset = offsets.mutable_data_ptr<int64_t>();
  auto* slot_of = row_slot.mutable_data_ptr<int64_t>();
  auto* row_of = slot_row.mutable_data_ptr<int64_t>();

  const int64_t pieces =
      std::clamp<int64_t>(at::divup(slot_count, kSlotsPerPiece), 1, static_cast<int64_t>(at::get_num_threads()));
  const int64_t piece_size = at::divup(slot_count, pieces);
  // next[piece * N + expert]: first how many slots the piece has there, then its next free row.
  std::vector<int64_t> next(pieces * num_experts, 0);

  at::parallel_for(0, pieces, 1, [&](int64_t first, int64_t last) {
    for (int64_t piece = first; piece < last; ++piece) {
      int64_t* tally = next.data() + piece * num_experts;
      const int64_t end = std::min(slot_count, (piece + 1) * piece_size);
      for (int64_t slot = piece * piece_size; slot < end; ++slot) {
        const int64_t expert = expert_of[slot];
        TORCH_CHECK_INDEX(
            expert >= -1 && expert < num_experts, "fmoe::route_plan: top_idx holds ", expert, " at token ",
            slot / indices.size(1), ", choice ", slot % indices.size(1),
            ", expected -1 (dropped) or an expert in [0, ", num_experts, ")");
        if (expert >= 0) {
          ++tally[expert];
        }
      }
    }
  });

  int64_t row = 0;
  for (int64_t expert = 0; expert < num_experts; ++expert) {
    offset[expert] = row;
    for (int64_t piece = 0; piece < pieces; ++piece) {
      const int64_t tally = next[piece * num_experts + expert];
      next[piece * num_experts + expert] = row;
      row += tally;
    }
    count[expert] = row - offset[expert];
  }
  offset[num_experts] = row;
  std::fill(slot_of + row, slot_of + slot_count, -1);

  at::parallel_for(0, pieces, 1, [&](int64_t first, int64_t last) {
    for (int64_t piece = first; piece < last; ++piece) {
      int64_t* free_row = next.data() + piece * num_experts;
      const int64_t end = std::min(slot_count, (piece + 1) * piece_size);
      for (int64_t slot = piece * piece_size; slot < end; ++slot) {
        const int64_t expert = expert_of[slot];
        row_of[slot] = expert < 0 ? -1 : free_row[expert]++;
        if (expert >= 0) {
          slot_of[row_of[slot]] = slot;
        }
      }
    }
  });
  return {counts, offsets, row_slot, slot_row};
}

}  // namespace

TORCH_LIBRARY_IMPL(fmoe, CPU, library) {
  library.impl("route_plan", TORCH_FN(route_plan));
}

}  // namespace fmoe::cpu
