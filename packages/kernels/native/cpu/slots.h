// Reading and checking index tensors on the CPU.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/Exception.h>

#include <cstdint>
#include <vector>

namespace fmoe::cpu {

using at::Tensor;

// int32 or any strides -> contiguous int64; no copy where it is that already.
inline Tensor as_indices(const Tensor& tensor) {
  return tensor.to(at::kLong).contiguous();
}

// Every slot must name a row of its own in [0, row_count) or -1: two slots on one row would race in the backward.
// Returns which rows are named.
inline std::vector<uint8_t> check_slot_values(
    const char* op, const int64_t* slot_row, int64_t slot_count, int64_t row_count) {
  std::vector<uint8_t> named(row_count, 0);
  for (int64_t slot = 0; slot < slot_count; ++slot) {
    const int64_t row = slot_row[slot];
    if (row == -1) {
      continue;
    }
    TORCH_CHECK_INDEX(
        row >= 0 && row < row_count, op, ": slot_row holds ", row, " at flat position ", slot,
        ", expected -1 (dropped) or a row in [0, ", row_count, ")");
    TORCH_CHECK_INDEX(
        !named[row], op, ": slot_row names row ", row, " more than once (again at flat position ", slot,
        "); each row belongs to one slot");
    named[row] = 1;
  }
  return named;
}

// row_slot and slot_row must be inverse to each other, or dispatch and its backward would not be transposed.
inline void check_inverse(
    const char* op, const int64_t* row_slot, int64_t row_count, const int64_t* slot_row, int64_t slot_count) {
  int64_t rows_used = 0, slots_used = 0;
  for (int64_t row = 0; row < row_count; ++row) {
    const int64_t slot = row_slot[row];
    if (slot == -1) {
      continue;
    }
    TORCH_CHECK_INDEX(
        slot >= 0 && slot < slot_count, op, ": row_slot holds ", slot, " at row ", row,
        ", expected -1 (padding) or a slot in [0, ", slot_count, ")");
    TORCH_CHECK_INDEX(
        slot_row[slot] == row, op, ": row_slot and slot_row are not inverse to each other: row ", row,
        " has slot ", slot, ", and that slot has row ", slot_row[slot]);
    ++rows_used;
  }
  for (int64_t slot = 0; slot < slot_count; ++slot) {
    const int64_t row = slot_row[slot];
    TORCH_CHECK_INDEX(
        row >= -1 && row < row_count, op, ": slot_row holds ", row, " at flat position ", slot,
        ", expected -1 (dropped) or a row in [0, ", row_count, ")");
    slots_used += row >= 0;
  }
  TORCH_CHECK_INDEX(
      rows_used == slots_used, op, ": row_slot and slot_row are not inverse to each other: ", rows_used,
      " rows have a slot, but ", slots_used, " slots have a row");
}

// 0 = offsets[0] <= offsets[1] <= ... <= offsets[E] <= row_count.
inline void check_offset_values(const char* op, const int64_t* offsets, int64_t experts, int64_t row_count) {
  TORCH_CHECK_INDEX(offsets[0] == 0, op, ": offsets must begin with 0, got ", offsets[0]);
  for (int64_t expert = 0; expert < experts; ++expert) {
    TORCH_CHECK_INDEX(
        offsets[expert] <= offsets[expert + 1], op, ": offsets must not decrease, got ", offsets[expert], " then ",
        offsets[expert + 1], " at position ", expert + 1);
  }
  TORCH_CHECK_INDEX(
      offsets[experts] <= row_count, op, ": offsets end at row ", offsets[experts], ", but there are only ",
      row_count, " rows");
}

}  // namespace fmoe::cpu
