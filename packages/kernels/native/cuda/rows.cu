// Kernels that move rows, in vectors of 16 bytes, or of one element where rows are not made of those. Neighbouring threads
// take neighbouring vectors, so every access is coalesced whatever the width.
#include "cuda/device.cuh"

#include <algorithm>

namespace fmoe::cuda {

namespace {

constexpr int64_t kMaximumBlocks = 1 << 20;

// The pairs (row, vector of the row) of this thread: a grid-stride loop without a division for each step.
template <typename Body>
__device__ void for_vectors(int64_t rows, int64_t vectors, const Body& body) {
  const int64_t count = rows * vectors, step = int64_t{gridDim.x} * blockDim.x;
  for (int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < count; i += step) {
    // 32-bit division is several times faster.
    const int64_t row = (count >> 32) == 0 ? static_cast<uint32_t>(i) / static_cast<uint32_t>(vectors) : i / vectors;
    body(row, i - row * vectors);
  }
}

// The threads of the grid share out the rows and slots. A row's slot must name that row and a slot's row that slot; where `end`
// is not null, the rows before *end must have a slot and the others none.
__device__ void check_inverse(
    const int64_t* row_slot, int64_t rows, const int64_t* slot_row, int64_t slots, const int64_t* end, int32_t* flags) {
  const int64_t first = int64_t{blockIdx.x} * blockDim.x + threadIdx.x, step = int64_t{gridDim.x} * blockDim.x;
  for (int64_t row = first; row < rows; row += step) {
    const int64_t slot = guarded(row_slot[row], slots, flags, BadValue::RowSlot);
    if (slot >= 0 && slot_row[slot] != row) {
      raise(flags, BadValue::RowSlot);
    }
    if (end != nullptr && (slot >= 0) != (row < *end)) {
      raise(flags, BadValue::Offsets);
    }
  }
  for (int64_t slot = first; slot < slots; slot += step) {
    const int64_t row = guarded(slot_row[slot], rows, flags, BadValue::SlotRow);
    if (row >= 0 && row_slot[row] != slot) {
      raise(flags, BadValue::SlotRow);
    }
  }
}

unsigned blocks_for(int64_t threads) {
  return static_cast<unsigned>(std::clamp<int64_t>(divide_up(threads, kThreads), 1, kMaximumBlocks));
}

// One warp a row, four loads under way at a time.
template <typename T, int kSize>
__global__ void gather_kernel(Gather task, int32_t* flags) {
  using V = Vector<T, kSize>;
  constexpr int kAtOnce = 4;
  check_inverse(task.row_slot, task.rows, task.slot_row, task.tokens * task.choices, nullptr, flags);
  const int64_t row = int64_t{blockIdx.x} * (kThreads / kWarp) + threadIdx.x / kWarp;
  if (row >= task.rows) {
    return;
  }
  const int64_t slot = guarded(task.row_slot[row], task.tokens * task.choices, flags, BadValue::RowSlot);
  const int64_t vectors = task.features / kSize;
  const auto* x = static_cast<const V*>(task.x) + (slot < 0 ? 0 : slot / task.choices * vectors);
  auto* out = static_cast<V*>(task.out) + row * vectors;
  for (int64_t first = threadIdx.x % kWarp; first < vectors; first += kAtOnce * kWarp) {
    V value[kAtOnce];
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      const int64_t vector = first + i * kWarp;
      value[i] = slot >= 0 && vector < vectors ? x[vector] : V{};
    }
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      const int64_t vector = first + i * kWarp;
      if (vector < vectors) {
        out[vector] = value[i];
      }
    }
  }
}

// One warp a token: its row stays in registers while the copies are written.
template <typename T, int kSize>
__global__ void spread_kernel(Spread task, int32_t* flags) {
  using V = Vector<T, kSize>;
  constexpr int kAtOnce = 4;
  if (task.row_slot != nullptr) {
    check_inverse(task.row_slot, task.rows, task.slot_row, task.tokens * task.choices, task.end, flags);
  }
  const int64_t token = int64_t{blockIdx.x} * (kThreads / kWarp) + threadIdx.x / kWarp;
  if (token >= task.tokens) {
    return;
  }
  const int64_t vectors = task.features / kSize;
  const auto* x = static_cast<const V*>(task.x) + token * vectors;
  const int64_t* rows = task.slot_row + token * task.choices;
  for (int64_t first = threadIdx.x % kWarp; first < vectors; first += kAtOnce * kWarp) {
    V value[kAtOnce];
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      value[i] = first + i * kWarp < vectors ? x[first + i * kWarp] : V{};
    }
    for (int64_t choice = 0; choice < task.choices; ++choice) {
      const int64_t row = guarded(rows[choice], task.rows, flags, BadValue::SlotRow);
      if (row < 0) {
        continue;
      }
      V* out = static_cast<V*>(task.out) + row * vectors;
#pragma unroll
      for (int i = 0; i < kAtOnce; ++i) {
        if (first + i * kWarp < vectors) {
          out[first + i * kWarp] = value[i];
        }
      }
    }
  }
}

template <typename T, int kSize, bool kWeighted>
__global__ void weighted_sum_kernel(WeightedSum task, int32_t* flags) {
  using V = Vector<T, kSize>;
  const auto* rows = static_cast<const V*>(task.rows);
  const auto* factor = static_cast<const Accumulator<T>*>(task.factor);
  auto* out = static_cast<V*>(task.out);
  const int64_t vectors = task.features / kSize;
  for_vectors(task.tokens, vectors, [&](int64_t token, int64_t vector) {
    Accumulator<T> total[kSize] = {};
    // Four loads are under way at a time; the sums stay in the order of the choices.
    constexpr int kAtOnce = 4;
    for (int64_t first = token * task.choices, last = first + task.choices; first < last; first += kAtOnce) {
      V value[kAtOnce];
      Accumulator<T> scale[kAtOnce];
#pragma unroll
      for (int i = 0; i < kAtOnce; ++i) {
        const int64_t slot = first + i;
        const int64_t row =
            slot < last ? guarded(task.slot_row[slot], task.row_count, flags, BadValue::SlotRow) : -1;
        value[i] = row < 0 ? V{} : rows[row * vectors + vector];
        scale[i] = row < 0 ? Accumulator<T>(0) : kWeighted ? factor[slot] : Accumulator<T>(1);
      }
#pragma unroll
      for (int i = 0; i < kAtOnce; ++i) {
#pragma unroll
        for (int lane = 0; lane < kSize; ++lane) {
          total[lane] += scale[i] * widen(value[i].lane[lane]);
        }
      }
    }
    V result;
#pragma unroll
    for (int lane = 0; lane < kSize; ++lane) {
      result.lane[lane] = narrow<T>(total[lane]);
    }
    out[token * vectors + vector] = result;
  });
}

// The warps of a block take consecutive slots, so that those of one token share its gradient in the cache.
template <typename T, int kSize>
__global__ void weighted_sum_backward_kernel(WeightedSumBackward task, int32_t* flags) {
  using V = Vector<T, kSize>;
  const int64_t slot = int64_t{blockIdx.x} * (kThreads / kWarp) + threadIdx.x / kWarp;
  const int lane = threadIdx.x % kWarp;
  if (slot >= task.tokens * task.choices) {
    return;
  }
  auto* factor_grad = static_cast<Accumulator<T>*>(task.factor_grad);
  const int64_t row = guarded(task.slot_row[slot], task.row_count, flags, BadValue::SlotRow);
  if (row < 0) {
    if (lane == 0) {
      factor_grad[slot] = 0;
    }
    return;
  }
  const int64_t vectors = task.features / kSize;
  const auto* grad = static_cast<const V*>(task.grad) + slot / task.choices * vectors;
  const auto* source = static_cast<const V*>(task.rows) + row * vectors;
  auto* target = static_cast<V*>(task.rows_grad) + row * vectors;
  const Accumulator<T> scale = static_cast<const Accumulator<T>*>(task.factor)[slot];
  Accumulator<T> product = 0;
  for (int64_t vector = lane; vector < vectors; vector += kWarp) {
    const V incoming = grad[vector], value = source[vector];
    V result;
#pragma unroll
    for (int i = 0; i < kSize; ++i) {
      const Accumulator<T> wide = widen(incoming.lane[i]);
      product += wide * widen(value.lane[i]);
      result.lane[i] = narrow<T>(scale * wide);
    }
    target[vector] = result;
  }
  product = sum_of_warp(product);
  if (lane == 0) {
    factor_grad[slot] = product;
    // Two slots that name one row race for its gradient.
    if (atomicExch(task.named + row, 1) != 0) {
      raise(flags, BadValue::SlotRow);
    }
  }
}

template <typename T, int kSize>
__global__ void zero_unnamed_kernel(T* rows, const int32_t* named, int64_t row_count, int64_t features) {
  using V = Vector<T, kSize>;
  const int64_t vectors = features / kSize;
  for (int64_t row = int64_t{blockIdx.x} * (kThreads / kWarp) + threadIdx.x / kWarp; row < row_count;
       row += int64_t{gridDim.x} * (kThreads / kWarp)) {
    if (!named[row]) {
      for (int64_t vector = threadIdx.x % kWarp; vector < vectors; vector += kWarp) {
        reinterpret_cast<V*>(rows)[row * vectors + vector] = V{};
      }
    }
  }
}

}  // namespace

void gather(const Gather& task, cudaStream_t stream) {
  if (task.rows * task.features == 0) {
    return;
  }
  with_vectors(
      task.dtype, task.features,
      [&](auto element, auto size) {
        gather_kernel<decltype(element), size()><<<blocks_of_warps(task.rows), kThreads, 0, stream>>>(
            task, error_flags());
      },
      task.x, task.out);
}

void spread(const Spread& task, cudaStream_t stream) {
  if (task.tokens * task.features == 0) {
    return;
  }
  with_vectors(
      task.dtype, task.features,
      [&](auto element, auto size) {
        spread_kernel<decltype(element), size()><<<blocks_of_warps(task.tokens), kThreads, 0, stream>>>(
            task, error_flags());
      },
      task.x, task.out);
}

void weighted_sum(const WeightedSum& task, cudaStream_t stream) {
  if (task.tokens * task.features == 0) {
    return;
  }
  with_vectors(
      task.dtype, task.features,
      [&](auto element, auto size) {
        using T = decltype(element);
        const auto kernel =
            task.factor ? weighted_sum_kernel<T, size(), true> : weighted_sum_kernel<T, size(), false>;
        kernel<<<blocks_for(task.tokens * (task.features / size())), kThreads, 0, stream>>>(task, error_flags());
      },
      task.rows, task.out);
}

void weighted_sum_backward(const WeightedSumBackward& task, cudaStream_t stream) {
  const int64_t slots = task.tokens * task.choices;
  if (task.row_count > 0) {
    check(cudaMemsetAsync(task.named, 0, task.row_count * sizeof(int32_t), stream));
  }
  with_vectors(
      task.dtype, task.features,
      [&](auto element, auto size) {
        using T = decltype(element);
        if (slots > 0) {
          weighted_sum_backward_kernel<T, size()><<<blocks_of_warps(slots), kThreads, 0, stream>>>(
              task, error_flags());
        }
        if (task.row_count > 0) {
          zero_unnamed_kernel<T, size()><<<blocks_for(task.row_count * kWarp), kThreads, 0, stream>>>(
              static_cast<T*>(task.rows_grad), task.named, task.row_count, task.features);
        }
      },
      task.grad, task.rows, task.rows_grad);
}

}  // namespace fmoe::cuda
