// Activations of the fused expert MLP over rows, compiled once for each instruction set. Pointers only: the caller has
// checked everything. All numbers have one dtype, float32 or float64.
#pragma once

#include "activation.h"

#include <c10/core/ScalarType.h>

#include <cstdint>

namespace fmoe::cpu {

// out[r] = act(pre[r])
struct ActivationRows {
  c10::ScalarType dtype;
  Activation activation;
  void* out;        // [rows, H]
  const void* pre;  // [rows, H], [rows, 2H] when gated
  int64_t rows;
  int64_t hidden;   // H
};

// With A = act(pre), the rows of grad in the first H columns of pre_grad, and the gradient factor[r] · grad[r] flowing into
// A[r]: out[r] = A[r], product[r] = ⟨grad[r], A[r]⟩, pre_grad[r] = factor[r] · grad[r] · act'(pre[r]).
struct ActivationRowsBackward {
  c10::ScalarType dtype;
  Activation activation;
  void* out;           // [rows, H]
  void* product;       // [rows]
  void* pre_grad;      // as pre
  const void* pre;     // [rows, H], [rows, 2H] when gated
  const void* factor;  // [rows]
  int64_t rows;
  int64_t hidden;      // H
};

// For each row in place: product[r] += ⟨rows[r], bias⟩ where there is a bias, then rows[r] *= factor[r].
struct ScaleRows {
  c10::ScalarType dtype;
  void* rows;          // [row_count, features]
  void* product;       // [row_count]
  const void* factor;  // [row_count]
  const void* bias;    // [features] or null
  int64_t row_count;
  int64_t features;
};

struct ActivationKernels {
  void (*forward)(const ActivationRows&);
  void (*backward)(const ActivationRowsBackward&);
  void (*scale)(const ScaleRows&);
};

// The table for this processor.
const ActivationKernels& activation_kernels();

}  // namespace fmoe::cpu
