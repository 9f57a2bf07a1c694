// Launchers of the CUDA kernels. Raw pointers only, so that no .cu file includes libtorch: the callers have checked
// dtypes, shapes and devices, made everything contiguous and set the device.
//
// Shape letters as in ops.h: T tokens, K choices, N experts of the route, E experts held here, R rows, D features.
//
// Nothing here waits for the device, allocates, or uses floating-point atomics, so that every launcher can be captured
// in a graph and gives the same bits on every run. Values (ids, slots, rows, offsets) are read on the device: a value out
// of range acts as -1 and sets a flag.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

namespace fmoe::cuda {

enum class Dtype : int { Float64, Float32, Float16, BFloat16 };

constexpr int64_t size_of(Dtype dtype) {
  return dtype == Dtype::Float64 ? 8 : dtype == Dtype::Float32 ? 4 : 2;
}

// What was out of range, one flag for each: positions in `flags` and in the result of fmoe::take_device_errors.
enum class BadValue : int { TopIdx, RowSlot, SlotRow, Offsets, Logits, Counts, Capacity, SelectionBias };
constexpr int kBadValues = 8;

// The flags of the current device: int32 [kBadValues], 0 or 1. They live as long as the library.
int32_t* error_flags();
// out [kBadValues] = the flags, which become 0.
void take_error_flags(int32_t* out, cudaStream_t stream);

// --- Routing ---

constexpr int64_t kMaximumExperts = 4096;

struct RoutePlan {
  const int64_t* expert_of;  // [slots]
  int64_t slots;             // T * K
  int experts;               // N
  int64_t* counts;           // [N]
  int64_t* offsets;          // [N + 1]
  int64_t* row_slot;         // [slots]
  int64_t* slot_row;         // [slots]
  int32_t* workspace;        // [route_plan_workspace(slots, experts)], may be null where that is 0
};

int64_t route_plan_workspace(int64_t slots, int experts);
void plan_route(const RoutePlan& task, cudaStream_t stream);

// In the order of fmoe::ScoreFunction.
enum class ScoreFunction : int { SoftmaxChosen, Softmax, Sigmoid };

// fmoe::topk_gate. A logit that is NaN or +inf counts as -inf, and so does a sum with a bias that is; both set a flag, and so
// does a bias of -inf.
struct TopkGate {
  Dtype dtype;
  ScoreFunction function;
  bool normalize;
  const void* logits;       // [T, N]
  const void* bias;         // [N], accumulation type, or null
  int64_t* top_idx;         // [T, K]
  void* top_score;          // [T, K], accumulation type
  int64_t tokens;
  int experts;              // N
  int choices;              // K
};
void choose_experts(const TopkGate& task, cudaStream_t stream);

struct TopkGateBackward {
  Dtype dtype;
  ScoreFunction function;
  bool normalize;
  void* logits_grad;        // [T, N]
  const void* grad;         // [T, K], accumulation type
  const void* logits;       // [T, N]
  const int64_t* top_idx;   // [T, K]
  const void* top_score;    // [T, K], accumulation type
  int64_t tokens;
  int experts;              // N
  int choices;              // K
};
void choose_experts_backward(const TopkGateBackward& task, cudaStream_t stream);

// kept[slot] = the slot's expert while that has room: with its row as the slot's place among the expert's, place <
// budget[expert]; else -1. Slots are numbered first choices first: slot = choice * T + token, in `expert_of` and `plan_row`;
// `kept` is [T, K].
struct Prune {
  const int64_t* expert_of;  // [K, T]
  const int64_t* plan_row;   // [K, T], slot_row of the route plan of expert_of
  const int64_t* offsets;    // [N + 1] of that plan
  const int64_t* budget;     // [N]
  int64_t* kept;             // [T, K]
  int64_t tokens;
  int64_t choices;
  int64_t experts;
};
void prune(const Prune& task, cudaStream_t stream);

// granted[w, e] = what is left of capacity[e] after the ranks before w, at most count[w, e]. Negative numbers count as 0
// and set a flag.
void limit_counts(
    int64_t* granted, const int64_t* count, const int64_t* capacity, int64_t ranks, int64_t experts,
    cudaStream_t stream);

// Sets the flag of the offsets unless ends[e] = offsets[e + 1] for all e.
void compare_ends(const int64_t* ends, const int64_t* offsets, int64_t experts, cudaStream_t stream);

// --- Rows ---

// out[r] = x[row_slot[r] / K], zeros where the slot is -1. Sets a flag unless row_slot and slot_row are inverse to each other.
struct Gather {
  Dtype dtype;
  void* out;                // [R, D]
  const void* x;            // [T, D]
  const int64_t* row_slot;  // [R]
  const int64_t* slot_row;  // [T, K], read for the check alone
  int64_t rows;
  int64_t tokens;
  int64_t choices;
  int64_t features;
};
void gather(const Gather& task, cudaStream_t stream);

// out[slot_row[t, j]] = x[t] for the slots that are not -1: the same rows as gather's where the two are inverse, but x is
// read once. Rows without a slot are left alone. Where row_slot is given, sets a flag unless the two are inverse to each other
// and the rows that have a slot are those before *end.
struct Spread {
  Dtype dtype;
  void* out;                // [R, D]
  const void* x;            // [T, D]
  const int64_t* slot_row;  // [T, K]
  const int64_t* row_slot;  // [R] or null
  const int64_t* end;       // one number, read only with row_slot
  int64_t rows;
  int64_t tokens;
  int64_t choices;
  int64_t features;
};
void spread(const Spread& task, cudaStream_t stream);

// out[t] = Σ_j factor[t, j] · rows[slot_row[t, j]] over the slots that are not -1, added in the order of j in the
// accumulation type (float64 for float64, else float32) and rounded once. `factor` is in that type; null means 1.
struct WeightedSum {
  Dtype dtype;
  void* out;                // [T, D]
  const void* rows;         // [R, D]
  const void* factor;       // [T, K] or null
  const int64_t* slot_row;  // [T, K]
  int64_t row_count;
  int64_t tokens;
  int64_t choices;
  int64_t features;
};
void weighted_sum(const WeightedSum& task, cudaStream_t stream);

// For each slot (t, j) with a row r: rows_grad[r] = factor[t, j] · grad[t]; factor_grad[t, j] = ⟨grad[t], rows[r]⟩.
// Slots without a row get factor_grad 0, rows without a slot zeros. Sets a flag where two slots name one row.
struct WeightedSumBackward {
  Dtype dtype;
  void* rows_grad;          // [R, D]
  void* factor_grad;        // [T, K], accumulation type
  const void* grad;         // [T, D]
  const void* rows;         // [R, D]
  const void* factor;       // [T, K], accumulation type
  const int64_t* slot_row;  // [T, K]
  int32_t* named;           // [R] scratch
  int64_t row_count;
  int64_t tokens;
  int64_t choices;
  int64_t features;
};
void weighted_sum_backward(const WeightedSumBackward& task, cudaStream_t stream);

// --- Grouped matrix products ---

enum class Product : int {
  Forward,     // out[r] = a[r] · b[e]ᵀ (+ bias[e])   a [R, K], b [E, N, K], out [R, N]
  InputGrad,   // out[r] = a[r] · b[e]                a [R, K], b [E, K, N], out [R, N]
  WeightGrad,  // out[e] = Σ_r a[r]ᵀ b[r]             a [R, M], b [R, N],    out [E, M, N]
};

// Rows past offsets[E] become zeros; so do the products of experts without rows.
struct GroupedProduct {
  Product product;
  Dtype dtype;
  bool tf32;               // float32 only: multiply in TF32
  void* out;
  const void* a;
  const void* b;
  const void* bias;        // [E, N] or null; Forward only
  const int64_t* offsets;  // [E + 1]
  int64_t experts;
  int64_t rows;            // R
  int64_t m;               // WeightGrad only
  int64_t n;
  int64_t k;               // not in WeightGrad
};
void grouped_product(const GroupedProduct& task, cudaStream_t stream);

// out[e] = Σ of the rows of expert e, accumulated as above; each times factor[row_slot[r]] unless that is null, and then
// without the rows that have no slot.
struct GroupedColumnSum {
  Dtype dtype;
  void* out;                // [E, D]
  const void* rows;         // [R, D]
  const int64_t* offsets;   // [E + 1]
  const void* factor;       // [T * K] or null, accumulation type
  const int64_t* row_slot;  // [R], read only with a factor
  int64_t experts;
  int64_t row_count;
  int64_t slots;            // T * K, read only with a factor
  int64_t features;
};
void grouped_column_sum(const GroupedColumnSum& task, cudaStream_t stream);

// What a library's grouped product leaves to do: adds bias[e] to the rows of expert e (unless null) and zeroes the rows
// past offsets[E].
struct FinishRows {
  Dtype dtype;
  void* rows;              // [R, D]
  const void* bias;        // [E, D] or null
  const int64_t* offsets;  // [E + 1]
  int64_t experts;
  int64_t row_count;
  int64_t features;
};
void finish_rows(const FinishRows& task, cudaStream_t stream);

// out[e] = offsets[e + 1] as int32, brought into order and into [0, rows]: what aten::_grouped_mm takes.
void group_ends(int32_t* out, const int64_t* offsets, int64_t experts, int64_t rows, cudaStream_t stream);

// --- The expert MLP between its two products ---

// In the order of fmoe::Activation.
enum class Activation : int { Gelu, GeluTanh, Relu, Silu, SwiGlu, GeGlu, ReGlu };

constexpr bool is_gated(Activation activation) {
  return activation >= Activation::SwiGlu;
}

// pre[r] += bias[e], rounded and kept, unless the bias is null; out[r] = act(pre[r]). Rows past offsets[E] become zeros in
// both.
struct ActivationForward {
  Dtype dtype;
  Activation activation;
  void* pre;               // [R, H], gated [R, 2H]
  void* out;               // [R, H]
  const void* bias;        // [E, H], gated [E, 2H], or null
  const int64_t* offsets;  // [E + 1]
  int64_t experts;
  int64_t rows;
  int64_t hidden;          // H
};
void activation_forward(const ActivationForward& task, cudaStream_t stream);

// With s the row's score, a = act(pre[r]) and d = inner[r], the gradient of the row's expert output times W2:
//   pre_grad[r] = s · d · act'(pre[r]); inner[r] becomes s · a; score_grad[slot] = ⟨d, a⟩ (+ ⟨grad[token], b2[e]⟩).
// Rows without a slot become zeros in both. score_grad is written for slots with a row only.
struct ActivationBackward {
  Dtype dtype;
  Activation activation;
  const void* pre;          // [R, H], gated [R, 2H]
  void* inner;              // [R, H]
  void* pre_grad;           // as pre
  const void* score;        // [T * K], accumulation type
  void* score_grad;         // [T * K], accumulation type
  const void* grad;         // [T, D], read only with b2
  const void* b2;           // [E, D] or null
  const int64_t* row_slot;  // [R]
  const int64_t* offsets;   // [E + 1]
  int64_t experts;
  int64_t rows;
  int64_t slots;            // T * K
  int64_t choices;
  int64_t hidden;           // H
  int64_t features;         // D
};
void activation_backward(const ActivationBackward& task, cudaStream_t stream);

}  // namespace fmoe::cuda
