// Kernels over rows grouped by expert that are no matrix product.
#include "cuda/device.cuh"

#include <algorithm>

namespace fmoe::cuda {

namespace {

// Column sums: each warp adds up every kSumWarps-th row of an expert.
constexpr int kSumWarps = 16;

template <typename T, int kSize>
__global__ void column_sum_kernel(GroupedColumnSum task, int32_t* flags) {
  using V = Vector<T, kSize>;
  __shared__ Accumulator<T> partial[kSumWarps][kWarp * kSize];
  const int64_t expert = blockIdx.y, vectors = task.features / kSize;
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  const int64_t vector = int64_t{blockIdx.x} * kWarp + lane;
  const Group group = group_of(task.offsets, expert, task.row_count);
  Accumulator<T> total[kSize] = {};
  if (vector < vectors) {
    const auto* rows = static_cast<const V*>(task.rows) + vector;
    const auto* factor = static_cast<const Accumulator<T>*>(task.factor);
#pragma unroll 4
    for (int64_t row = group.begin + warp; row < group.end; row += kSumWarps) {
      V value = rows[row * vectors];
      Accumulator<T> scale = 1;
      if (factor != nullptr) {
        const int64_t slot = guarded(task.row_slot[row], task.slots, flags, BadValue::RowSlot);
        scale = slot < 0 ? Accumulator<T>(0) : factor[slot];
        // A row without a slot may hold anything.
        value = slot < 0 ? V{} : value;
      }
#pragma unroll
      for (int i = 0; i < kSize; ++i) {
        total[i] += scale * widen(value.lane[i]);
      }
    }
  }
#pragma unroll
  for (int i = 0; i < kSize; ++i) {
    partial[warp][i * kWarp + lane] = total[i];
  }
  __syncthreads();
  // Consecutive threads add up one column each.
  for (int column = threadIdx.x; column < kWarp * kSize; column += blockDim.x) {
    const int64_t feature = (int64_t{blockIdx.x} * kWarp + column % kWarp) * kSize + column / kWarp;
    if (feature < task.features) {
      Accumulator<T> sum = 0;
      for (int i = 0; i < kSumWarps; ++i) {
        sum += partial[i][column];
      }
      static_cast<T*>(task.out)[expert * task.features + feature] = narrow<T>(sum);
    }
  }
}

template <typename T, int kSize>
__global__ void finish_rows_kernel(FinishRows task) {
  using V = Vector<T, kSize>;
  const int64_t vectors = task.features / kSize;
  const int64_t used = min(max(task.offsets[task.experts], int64_t{0}), task.row_count);
  // Without a bias only the rows past the last expert are touched.
  const int64_t first = task.bias ? 0 : used;
  const int64_t step = int64_t{gridDim.x} * (kThreads / kWarp);
  for (int64_t row = first + int64_t{blockIdx.x} * (kThreads / kWarp) + threadIdx.x / kWarp; row < task.row_count;
       row += step) {
    auto* target = static_cast<V*>(task.rows) + row * vectors;
    const int64_t expert = row < used ? expert_of_row(task.offsets, task.experts, row) : -1;
    if (expert < 0) {
      for (int64_t vector = threadIdx.x % kWarp; vector < vectors; vector += kWarp) {
        target[vector] = V{};
      }
      continue;
    }
    const auto* bias = static_cast<const V*>(task.bias) + expert * vectors;
    for (int64_t vector = threadIdx.x % kWarp; vector < vectors; vector += kWarp) {
      const V value = target[vector], addend = bias[vector];
      V sum;
#pragma unroll
      for (int i = 0; i < kSize; ++i) {
        sum.lane[i] = narrow<T>(widen(value.lane[i]) + widen(addend.lane[i]));
      }
      target[vector] = sum;
    }
  }
}

// One block: ends never decrease and never pass the rows, whatever the offsets say.
__global__ void group_ends_kernel(int32_t* out, const int64_t* offsets, int64_t experts, int64_t rows, int32_t* flags) {
  __shared__ int64_t highest[kThreads];
  int64_t before = 0;
  for (int64_t begin = 0; begin < experts; begin += kThreads) {
    const int64_t expert = begin + threadIdx.x;
    if (expert < experts) {
      const Group group = group_of(offsets, expert, rows);
      if (group.bad) {
        raise(flags, BadValue::Offsets);
      }
      highest[threadIdx.x] = group.end;
    } else {
      highest[threadIdx.x] = 0;
    }
    __syncthreads();
    for (int distance = 1; distance < kThreads; distance *= 2) {
      const int64_t other = threadIdx.x >= distance ? highest[threadIdx.x - distance] : 0;
      __syncthreads();
      highest[threadIdx.x] = max(highest[threadIdx.x], other);
      __syncthreads();
    }
    if (expert < experts) {
      out[expert] = static_cast<int32_t>(max(before, highest[threadIdx.x]));
    }
    before = max(before, highest[kThreads - 1]);
    __syncthreads();
  }
}

}  // namespace

void grouped_column_sum(const GroupedColumnSum& task, cudaStream_t stream) {
  if (task.experts * task.features == 0) {
    return;
  }
  with_dtype(task.dtype, [&](auto element) {
    using T = decltype(element);
    // Two bytes of element make 16 KB of partial sums at 4 lanes a vector: narrower vectors, more blocks.
    constexpr int kSize = sizeof(T) == 8 ? 1 : 4;
    const bool vectors = task.features % kSize == 0 && reinterpret_cast<uintptr_t>(task.rows) % 16 == 0;
    const auto launch = [&](auto size) {
      const dim3 grid(static_cast<unsigned>(divide_up(task.features / size(), kWarp)), task.experts);
      column_sum_kernel<T, size()><<<grid, kSumWarps * kWarp, 0, stream>>>(task, error_flags());
    };
    if (vectors) {
      launch(std::integral_constant<int, kSize>{});
    } else {
      launch(std::integral_constant<int, 1>{});
    }
  });
  check(cudaGetLastError());
}

void finish_rows(const FinishRows& task, cudaStream_t stream) {
  if (task.row_count * task.features == 0) {
    return;
  }
  const unsigned blocks = std::min(blocks_of_warps(task.row_count), task.bias ? 1u << 20 : 1024u);
  with_vectors(
      task.dtype, task.features,
      [&](auto element, auto size) {
        finish_rows_kernel<decltype(element), size()><<<blocks, kThreads, 0, stream>>>(task);
      },
      task.rows, task.bias);
}

void group_ends(int32_t* out, const int64_t* offsets, int64_t experts, int64_t rows, cudaStream_t stream) {
  group_ends_kernel<<<1, kThreads, 0, stream>>>(out, offsets, experts, rows, error_flags());
  check(cudaGetLastError());
}

}  // namespace fmoe::cuda
