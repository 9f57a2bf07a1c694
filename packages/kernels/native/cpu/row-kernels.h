// Vector loops over rows, compiled once for each instruction set. Pointers only: the caller has checked everything.
#pragma once

#include <c10/core/ScalarType.h>

#include <cstdint>

namespace fmoe::cpu {

// out[t] = Σ_j factor[t, j] · rows[slot_row[t, j]] over the slots that are not -1, added in the order of j in the
// accumulation type (float64 for float64, else float32) and rounded once. `factor` [T, K] is in that type; null
// means 1.
struct WeightedSum {
  c10::ScalarType dtype;
  void* out;               // [T, D]
  const void* rows;        // [R, D]
  const void* factor;      // [T, K] or null
  const int64_t* slot_row; // [T, K]
  int64_t choices;         // K
  int64_t features;        // D
};

// For each slot (t, j) with a row r: rows_grad[r] = factor[t, j] · grad[t]; factor_grad[t, j] = ⟨grad[t], rows[r]⟩.
// Slots without a row get factor_grad 0; rows without a slot are left alone.
struct WeightedSumBackward {
  c10::ScalarType dtype;
  void* rows_grad;         // [R, D]
  void* factor_grad;       // [T, K], accumulation type
  const void* grad;        // [T, D]
  const void* rows;        // [R, D]
  const void* factor;      // [T, K], accumulation type
  const int64_t* slot_row; // [T, K]
  int64_t choices;
  int64_t features;
};

// out[c] = Σ rows[r, c] for columns [first, last): pieces of 64 rows are added up first, so that the error grows
// with the number of pieces instead of rows.
struct ColumnSum {
  c10::ScalarType dtype;
  void* out;               // [columns]
  const void* rows;        // [row_count, columns]
  int64_t row_count;
  int64_t columns;
};

struct RowKernels {
  void (*weighted_sum)(const WeightedSum&, int64_t first_token, int64_t last_token);
  void (*weighted_sum_backward)(const WeightedSumBackward&, int64_t first_token, int64_t last_token);
  void (*column_sum)(const ColumnSum&, int64_t first_column, int64_t last_column);
};

// The table for this processor.
const RowKernels& row_kernels();

}  // namespace fmoe::cpu
