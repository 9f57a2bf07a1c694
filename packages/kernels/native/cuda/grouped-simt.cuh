// The grouped product without tensor cores, in the accumulation type of the elements: float64, and float32 where TF32 is
// off.
#pragma once

#include "cuda/grouped-tile.cuh"

namespace fmoe::cuda {

template <typename T, int kTile_, int kThread_>
struct SimtShape {
  static constexpr int kTile = kTile_;      // rows and columns of a block's tile
  static constexpr int kThread = kThread_;  // rows and columns of a thread's part
  static constexpr int kDepth = 16;
  static constexpr int kThreads = (kTile / kThread) * (kTile / kThread);
  static constexpr int kElements = kTile * kDepth / kThreads;  // of one operand, loaded by a thread in one step
  static constexpr int kPitch = kTile + 4;
};

// One step of an operand: from memory to registers (zeros outside), from registers to shared memory [depth][tile].
template <typename T, typename Shape, bool kDepthFirst>
struct SimtLoader {
  Operand<T> operand;

  __device__ void load(T (&value)[Shape::kElements], int64_t depth) const {
#pragma unroll
    for (int i = 0; i < Shape::kElements; ++i) {
      const int index = threadIdx.x + i * Shape::kThreads;
      const int64_t line = kDepthFirst ? index / Shape::kDepth : depth + index / Shape::kTile;
      const int64_t position = kDepthFirst ? depth + index % Shape::kDepth : index % Shape::kTile;
      value[i] = line < operand.lines && position < operand.length ? operand.data[line * operand.pitch + position] : T(0);
    }
  }

  __device__ void store(const T (&value)[Shape::kElements], T (&shared)[Shape::kDepth][Shape::kPitch]) const {
#pragma unroll
    for (int i = 0; i < Shape::kElements; ++i) {
      const int index = threadIdx.x + i * Shape::kThreads;
      if (kDepthFirst) {
        shared[index % Shape::kDepth][index / Shape::kDepth] = value[i];
      } else {
        shared[index / Shape::kTile][index % Shape::kTile] = value[i];
      }
    }
  }
};

template <typename T, typename Shape, Product kProduct>
__global__ void __launch_bounds__(Shape::kThreads) grouped_simt_kernel(GroupedProduct task, int32_t* flags) {
  constexpr int kPart = Shape::kThread, kTile = Shape::kTile;
  __shared__ __align__(16) T shared_a[Shape::kDepth][Shape::kPitch];
  __shared__ __align__(16) T shared_b[Shape::kDepth][Shape::kPitch];
  const Tile tile = find_tile<kProduct, kTile, kTile>(task, flags);
  if (!tile.any) {
    return;
  }
  const SimtLoader<T, Shape, kDepthFirstA<kProduct>> load_a{operand_a<kProduct, T>(task, tile)};
  const SimtLoader<T, Shape, kDepthFirstB<kProduct>> load_b{operand_b<kProduct, T>(task, tile)};
  const int first_row = threadIdx.x / (kTile / kPart) * kPart, first_column = threadIdx.x % (kTile / kPart) * kPart;

  T total[kPart][kPart] = {};
  T next_a[Shape::kElements], next_b[Shape::kElements];
  load_a.load(next_a, 0);
  load_b.load(next_b, 0);
  for (int64_t depth = 0; depth < tile.depth; depth += Shape::kDepth) {
    load_a.store(next_a, shared_a);
    load_b.store(next_b, shared_b);
    __syncthreads();
    if (depth + Shape::kDepth < tile.depth) {
      load_a.load(next_a, depth + Shape::kDepth);
      load_b.load(next_b, depth + Shape::kDepth);
    }
#pragma unroll
    for (int step = 0; step < Shape::kDepth; ++step) {
      T a[kPart], b[kPart];
#pragma unroll
      for (int i = 0; i < kPart; ++i) {
        a[i] = shared_a[step][first_row + i];
        b[i] = shared_b[step][first_column + i];
      }
#pragma unroll
      for (int i = 0; i < kPart; ++i) {
#pragma unroll
        for (int j = 0; j < kPart; ++j) {
          total[i][j] += a[i] * b[j];
        }
      }
    }
    __syncthreads();
  }

  const auto* bias = static_cast<const T*>(task.bias);
  auto* out = static_cast<T*>(task.out);
#pragma unroll
  for (int i = 0; i < kPart; ++i) {
    const int64_t row = tile.row + first_row + i;
#pragma unroll
    for (int j = 0; j < kPart; ++j) {
      const int64_t column = tile.column + first_column + j;
      if (row < tile.row_limit && column < task.n) {
        const bool add = kProduct == Product::Forward && bias != nullptr && tile.expert < task.experts;
        out[row * task.n + column] = total[i][j] + (add ? bias[tile.expert * task.n + column] : T(0));
      }
    }
  }
}

}  // namespace fmoe::cuda
