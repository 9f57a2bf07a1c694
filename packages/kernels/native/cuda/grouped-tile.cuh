// Where the tiles of a grouped product lie, and how its operands come into shared memory. All of it follows from the
// offsets on the device, so that nothing waits for them and a captured graph can be replayed with other routing.
#pragma once

#include "cuda/device.cuh"

namespace fmoe::cuda {

// A tile of the output: its rows and columns, and the part of the operands that it is made of.
struct Tile {
  int64_t expert;     // E for the rows past the last expert
  int64_t row;        // first row of `out`, as its rows are counted through all experts
  int64_t row_limit;  // end of the rows that belong to the expert
  int64_t column;
  int64_t a_row;      // WeightGrad: the first row of the reduction
  int64_t depth;      // length of the reduction
  bool any;
};

// Rows of experts come in tiles of `tile_rows`; each expert may have one that is not full, and so may the rows past them.
inline int64_t row_tiles(const GroupedProduct& task, int tile_rows) {
  return task.rows / tile_rows + std::min(task.rows, task.experts + 1);
}

inline int64_t tile_count(const GroupedProduct& task, int tile_rows, int tile_columns) {
  const int64_t columns = divide_up(task.n, tile_columns);
  return columns * (task.product == Product::WeightGrad ? task.experts * divide_up(task.m, tile_rows)
                                                        : row_tiles(task, tile_rows));
}

// The tile of this block; tiles that share rows follow each other, so that they find them in the L2 cache. To be called by
// all threads.
template <Product kProduct, int kRows, int kColumns>
__device__ Tile find_tile(const GroupedProduct& task, int32_t* flags) {
  const int64_t column_tiles = (task.n + kColumns - 1) / kColumns;
  const int64_t row_tile = blockIdx.x / column_tiles;
  const int64_t column = (blockIdx.x - row_tile * column_tiles) * kColumns;
  if constexpr (kProduct == Product::WeightGrad) {
    const int64_t tiles = (task.m + kRows - 1) / kRows;
    const int64_t expert = row_tile / tiles;
    const Group group = group_of(task.offsets, expert, task.rows);
    if (group.bad && threadIdx.x == 0) {
      raise(flags, BadValue::Offsets);
    }
    const int64_t first = expert * task.m;
    return {expert, first + (row_tile - expert * tiles) * kRows, first + task.m, column, group.begin,
            group.end - group.begin, true};
  } else {
    __shared__ Tile found;
    if (threadIdx.x == 0) {
      found.any = false;
    }
    __syncthreads();
    if (threadIdx.x < 32) {
      const int lane = threadIdx.x;
      int64_t before = 0;
      for (int64_t first = 0; first <= task.experts; first += 32) {
        const int64_t expert = first + lane;
        Group group{0, 0, false};
        if (expert < task.experts) {
          group = group_of(task.offsets, expert, task.rows);
          if (group.bad && blockIdx.x == 0) {
            raise(flags, BadValue::Offsets);
          }
        } else if (expert == task.experts) {
          group = {min(max(task.offsets[expert], int64_t{0}), task.rows), task.rows, false};
        }
        const int64_t tiles = (group.end - group.begin + kRows - 1) / kRows;
        int64_t through = tiles;
        for (int distance = 1; distance < 32; distance *= 2) {
          const int64_t other = __shfl_up_sync(0xffffffffu, through, distance);
          through += lane >= distance ? other : 0;
        }
        through += before;
        const bool mine = row_tile >= through - tiles && row_tile < through;
        if (mine) {
          found = {expert, group.begin + (row_tile - (through - tiles)) * kRows, group.end, column, 0,
                   expert < task.experts ? task.k : 0, true};
        }
        before = __shfl_sync(0xffffffffu, through, 31);
        if (__any_sync(0xffffffffu, mine) || (row_tile < before)) {
          break;
        }
      }
    }
    __syncthreads();
    return found;
  }
}

// One operand of a tile in memory: `lines` runs of `length` elements that follow each other, `pitch` apart.
template <typename T>
struct Operand {
  const T* data;
  int64_t pitch;
  int64_t lines;
  int64_t length;
};

// Whether the reduction index runs fastest in memory.
template <Product kProduct>
constexpr bool kDepthFirstA = kProduct != Product::WeightGrad;
template <Product kProduct>
constexpr bool kDepthFirstB = kProduct == Product::Forward;

template <Product kProduct, typename T>
__device__ Operand<T> operand_a(const GroupedProduct& task, const Tile& tile) {
  const auto* a = static_cast<const T*>(task.a);
  if constexpr (kDepthFirstA<kProduct>) {
    return {a + tile.row * task.k, task.k, tile.row_limit - tile.row, tile.depth};
  } else {
    const int64_t column = tile.row - tile.expert * task.m;
    return {a + tile.a_row * task.m + column, task.m, tile.depth, task.m - column};
  }
}

template <Product kProduct, typename T>
__device__ Operand<T> operand_b(const GroupedProduct& task, const Tile& tile) {
  const auto* b = static_cast<const T*>(task.b);
  // The rows past the experts have no matrix; nothing of it is read, for their depth is 0.
  const int64_t expert = tile.expert < task.experts ? tile.expert : 0;
  if constexpr (kProduct == Product::Forward) {
    return {b + (expert * task.n + tile.column) * task.k, task.k, task.n - tile.column, tile.depth};
  } else if constexpr (kProduct == Product::InputGrad) {
    return {b + expert * task.k * task.n + tile.column, task.n, tile.depth, task.n - tile.column};
  } else {
    return {b + tile.a_row * task.n + tile.column, task.n, tile.depth, task.n - tile.column};
  }
}

}  // namespace fmoe::cuda
