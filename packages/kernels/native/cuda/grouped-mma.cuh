// The grouped product on the tensor cores of every GPU since sm_80 (mma.sync): float16 and bfloat16 with float32
// accumulation, float32 in TF32.
//
// A block makes a tile of 128 x 128: 8 warps, each 64 x 32 of it, or 4 warps with 64 x 64 where the fragments' loads out of
// shared memory would take longer than the products. The operands lie in shared memory as they lie in memory (so no
// transposition is ever stored), in four stages that cp.async fills ahead; rows are padded so that the fragments' loads have no
// bank conflicts. Widths that are not made of 16-byte pieces are copied element by element.
#pragma once

#include "cuda/grouped-tile.cuh"

namespace fmoe::cuda {

constexpr int kMmaTile = 128;
constexpr int kMmaStages = 4;
constexpr int kWarpRows = 64;

// Four 8 x 8 matrices of 16-bit elements, lane l giving the address of row l % 8 of matrix l / 8. Each lane gets the pair
// (row lane / 4, columns 2 * (lane % 4) and the next) of each.
template <bool kTranspose>
__device__ inline void load_matrices(uint32_t (&value)[4], const void* row) {
  const auto address = static_cast<unsigned>(__cvta_generic_to_shared(row));
  if constexpr (kTranspose) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(value[0]), "=r"(value[1]), "=r"(value[2]), "=r"(value[3])
                 : "r"(address));
  } else {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(value[0]), "=r"(value[1]), "=r"(value[2]), "=r"(value[3])
                 : "r"(address));
  }
}

template <typename T>
struct Mma;

// m16n8k16 on 16-bit elements.
template <typename T>
struct MmaHalf {
  static constexpr int kDepth = 32;      // of a stage
  static constexpr int kStep = 16;       // of an instruction
  static constexpr int kWarpColumns = 32;

  static constexpr int pad(bool) { return 8; }

  // 16 rows from `row`, 16 of the depth from `depth`.
  template <bool kDepthFirst, int kPitch>
  __device__ static void load_a(uint32_t (&value)[4], const T* shared, int row, int depth) {
    const int lane = threadIdx.x % 32;
    if constexpr (kDepthFirst) {
      load_matrices<false>(value, shared + (row + lane % 16) * kPitch + depth + lane / 16 * 8);
    } else {
      load_matrices<true>(value, shared + (depth + lane % 8 + lane / 16 * 8) * kPitch + row + lane / 8 % 2 * 8);
    }
  }

  // Two fragments: 8 columns from `column`, and the 8 after them.
  template <bool kDepthFirst, int kPitch>
  __device__ static void load_b(uint32_t (&first)[2], uint32_t (&second)[2], const T* shared, int column, int depth) {
    const int lane = threadIdx.x % 32;
    uint32_t value[4];
    if constexpr (kDepthFirst) {
      load_matrices<false>(
          value, shared + (column + lane % 8 + lane / 16 * 8) * kPitch + depth + lane / 8 % 2 * 8);
    } else {
      load_matrices<true>(value, shared + (depth + lane % 8 + lane / 8 % 2 * 8) * kPitch + column + lane / 16 * 8);
    }
    first[0] = value[0];
    first[1] = value[1];
    second[0] = value[2];
    second[1] = value[3];
  }
};

#define FMOE_MMA_HALF(T, NAME)                                                                                 \
  template <>                                                                                                  \
  struct Mma<T> : MmaHalf<T> {                                                                                 \
    __device__ static void multiply(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {           \
      asm volatile("mma.sync.aligned.m16n8k16.row.col.f32." NAME "." NAME ".f32 "                              \
                   "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"                           \
                   : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])                                            \
                   : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));                        \
    }                                                                                                          \
  };
FMOE_MMA_HALF(__half, "f16")
FMOE_MMA_HALF(__nv_bfloat16, "bf16")
#undef FMOE_MMA_HALF

// m16n8k8 in TF32. Where the depth runs fastest a 32-bit element is a pair of 16-bit ones to ldmatrix; else fragments are
// loaded word by word, for it cannot transpose those.
template <>
struct Mma<float> {
  static constexpr int kDepth = 16;
  static constexpr int kStep = 8;
  static constexpr int kWarpColumns = 64;

  static constexpr int pad(bool depth_first) { return depth_first ? 4 : 8; }

  __device__ static uint32_t round(uint32_t bits) {
    uint32_t rounded;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(rounded) : "f"(__uint_as_float(bits)));
    return rounded;
  }

  // 16 rows from `row`, 8 of the depth from `depth`.
  template <bool kDepthFirst, int kPitch>
  __device__ static void load_a(uint32_t (&value)[4], const float* shared, int row, int depth) {
    const int lane = threadIdx.x % 32;
    if constexpr (kDepthFirst) {
      load_matrices<false>(value, shared + (row + lane % 16) * kPitch + depth + lane / 16 * 4);
    } else {
      const float* first = shared + (depth + lane % 4) * kPitch + row + lane / 4;
      value[0] = __float_as_uint(first[0]);
      value[1] = __float_as_uint(first[8]);
      value[2] = __float_as_uint(first[4 * kPitch]);
      value[3] = __float_as_uint(first[4 * kPitch + 8]);
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      value[i] = round(value[i]);
    }
  }

  // Two fragments: 8 columns from `column`, and the 8 after them.
  template <bool kDepthFirst, int kPitch>
  __device__ static void load_b(
      uint32_t (&first)[2], uint32_t (&second)[2], const float* shared, int column, int depth) {
    const int lane = threadIdx.x % 32;
    uint32_t value[4];
    if constexpr (kDepthFirst) {
      load_matrices<false>(
          value, shared + (column + lane % 8 + lane / 16 * 8) * kPitch + depth + lane / 8 % 2 * 4);
    } else {
      const float* start = shared + (depth + lane % 4) * kPitch + column + lane / 4;
      value[0] = __float_as_uint(start[0]);
      value[1] = __float_as_uint(start[4 * kPitch]);
      value[2] = __float_as_uint(start[8]);
      value[3] = __float_as_uint(start[4 * kPitch + 8]);
    }
    first[0] = round(value[0]);
    first[1] = round(value[1]);
    second[0] = round(value[2]);
    second[1] = round(value[3]);
  }

  __device__ static void multiply(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
    asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 "
                 "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
  }
};

template <typename T>
constexpr int kMmaThreads = (kMmaTile / kWarpRows) * (kMmaTile / Mma<T>::kWarpColumns) * 32;

// Copies one stage of an operand: 128 x kDepth elements from `depth` on, zeros outside.
template <typename T, bool kDepthFirst>
struct MmaLoader {
  static constexpr int kDepth = Mma<T>::kDepth;
  static constexpr int kLines = kDepthFirst ? kMmaTile : kDepth;
  static constexpr int kLength = kDepthFirst ? kDepth : kMmaTile;
  static constexpr int kPitch = kLength + Mma<T>::pad(kDepthFirst);
  static constexpr int kElements = kLines * kPitch;

  Operand<T> operand;
  bool wide;

  __device__ void copy(T* shared, int64_t depth) const {
    const int64_t first_line = kDepthFirst ? 0 : depth, first_position = kDepthFirst ? depth : 0;
    if (wide) {
      constexpr int kPieces = kLength / kWide<T>;
#pragma unroll
      for (int i = 0; i < kLines * kPieces / kMmaThreads<T>; ++i) {
        const int index = threadIdx.x + i * kMmaThreads<T>;
        const int line = index / kPieces, position = index % kPieces * kWide<T>;
        const bool inside = first_line + line < operand.lines && first_position + position < operand.length;
        const T* source =
            inside ? operand.data + (first_line + line) * operand.pitch + first_position + position : operand.data;
        const auto target = static_cast<unsigned>(__cvta_generic_to_shared(shared + line * kPitch + position));
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(target), "l"(source), "r"(inside ? 16 : 0));
      }
    } else {
      for (int index = threadIdx.x; index < kLines * kLength; index += kMmaThreads<T>) {
        const int line = index / kLength, position = index % kLength;
        const bool inside = first_line + line < operand.lines && first_position + position < operand.length;
        shared[line * kPitch + position] =
            inside ? operand.data[(first_line + line) * operand.pitch + first_position + position] : narrow<T>(0.0f);
      }
    }
  }
};

template <typename T, Product kProduct>
constexpr int mma_shared_bytes() {
  return kMmaStages * static_cast<int>(sizeof(T)) *
         (MmaLoader<T, kDepthFirstA<kProduct>>::kElements + MmaLoader<T, kDepthFirstB<kProduct>>::kElements);
}

template <typename T, Product kProduct>
__global__ void __launch_bounds__(kMmaThreads<T>, 2) grouped_mma_kernel(
    GroupedProduct task, bool wide_a, bool wide_b, int32_t* flags) {
  using M = Mma<T>;
  using LoadA = MmaLoader<T, kDepthFirstA<kProduct>>;
  using LoadB = MmaLoader<T, kDepthFirstB<kProduct>>;
  constexpr int kRowParts = kWarpRows / 16, kColumnParts = M::kWarpColumns / 8;
  extern __shared__ __align__(16) unsigned char shared[];
  T* shared_a = reinterpret_cast<T*>(shared);
  T* shared_b = shared_a + kMmaStages * LoadA::kElements;

  const Tile tile = find_tile<kProduct, kMmaTile, kMmaTile>(task, flags);
  if (!tile.any) {
    return;
  }
  const LoadA load_a{operand_a<kProduct, T>(task, tile), wide_a};
  const LoadB load_b{operand_b<kProduct, T>(task, tile), wide_b};
  const int warp = threadIdx.x / 32;
  const int first_row = warp % 2 * kWarpRows, first_column = warp / 2 * M::kWarpColumns;

  const int64_t steps = (tile.depth + M::kDepth - 1) / M::kDepth;
  const auto fill = [&](int64_t step) {
    if (step < steps) {
      load_a.copy(shared_a + step % kMmaStages * LoadA::kElements, step * M::kDepth);
      load_b.copy(shared_b + step % kMmaStages * LoadB::kElements, step * M::kDepth);
    }
    asm volatile("cp.async.commit_group;");
  };
  for (int stage = 0; stage < kMmaStages - 1; ++stage) {
    fill(stage);
  }

  float total[kRowParts][kColumnParts][4] = {};
  for (int64_t step = 0; step < steps; ++step) {
    asm volatile("cp.async.wait_group %0;" ::"n"(kMmaStages - 2));
    __syncthreads();
    // Goes into the stage that all warps have left, by the barrier above.
    fill(step + kMmaStages - 1);
    const T* a = shared_a + step % kMmaStages * LoadA::kElements;
    const T* b = shared_b + step % kMmaStages * LoadB::kElements;
#pragma unroll
    for (int depth = 0; depth < M::kDepth; depth += M::kStep) {
      uint32_t part_a[kRowParts][4], part_b[kColumnParts][2];
#pragma unroll
      for (int i = 0; i < kRowParts; ++i) {
        M::template load_a<kDepthFirstA<kProduct>, LoadA::kPitch>(part_a[i], a, first_row + i * 16, depth);
      }
#pragma unroll
      for (int j = 0; j < kColumnParts; j += 2) {
        M::template load_b<kDepthFirstB<kProduct>, LoadB::kPitch>(
            part_b[j], part_b[j + 1], b, first_column + j * 8, depth);
      }
#pragma unroll
      for (int i = 0; i < kRowParts; ++i) {
#pragma unroll
        for (int j = 0; j < kColumnParts; ++j) {
          M::multiply(total[i][j], part_a[i], part_b[j]);
        }
      }
    }
  }

  const auto* bias = static_cast<const T*>(task.bias);
  const bool add = kProduct == Product::Forward && bias != nullptr && tile.expert < task.experts;
  auto* out = static_cast<T*>(task.out);
  const int group = threadIdx.x % 32 / 4, member = threadIdx.x % 4;
  const bool pairs = task.n % 2 == 0;
#pragma unroll
  for (int i = 0; i < kRowParts; ++i) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int64_t row = tile.row + first_row + i * 16 + half * 8 + group;
      if (row >= tile.row_limit) {
        continue;
      }
#pragma unroll
      for (int j = 0; j < kColumnParts; ++j) {
        const int64_t column = tile.column + first_column + j * 8 + member * 2;
        Vector<T, 2> value;
#pragma unroll
        for (int lane = 0; lane < 2; ++lane) {
          const float addend =
              add && column + lane < task.n ? widen(bias[tile.expert * task.n + column + lane]) : 0.0f;
          value.lane[lane] = narrow<T>(total[i][j][half * 2 + lane] + addend);
        }
        T* target = out + row * task.n + column;
        if (pairs) {
          if (column < task.n) {
            *reinterpret_cast<Vector<T, 2>*>(target) = value;
          }
        } else {
          for (int lane = 0; lane < 2; ++lane) {
            if (column + lane < task.n) {
              target[lane] = value.lane[lane];
            }
          }
        }
      }
    }
  }
}

}  // namespace fmoe::cuda
