// A stable counting sort of the slots by expert.
//
// The slots are cut into blocks, and each block's share into pieces, one a warp. A warp goes through its piece 32 slots at
// a time; lanes with the same expert find each other with __match_any_sync and take consecutive places in lane order. So
// the order is by expert, and by slot inside an expert, whatever the number of blocks and warps. The only atomics are on
// integers in shared memory, whose sum has no order.
//
// Few slots are sorted by one block in one launch. Else: count (blocks) - sum over blocks and experts (one block) - place.
#include "cuda/device.cuh"

#include <algorithm>

namespace fmoe::cuda {

namespace {

constexpr int kSumThreads = 1024;
// A warp's counters are 16 bits wide; with at most this many experts, 32 warps have room for theirs.
constexpr int kSingleBlockExperts = 1024;
constexpr int64_t kSingleBlockSlots = 2048;
constexpr int kBlockWarps = 8;
constexpr int64_t kSlotsPerBlock = 2048;
constexpr int64_t kMaximumBlocks = 512;

struct Piece {
  int64_t begin;
  int64_t end;
};

__device__ Piece piece_of(int64_t begin, int64_t end, int warp, int warps) {
  const int64_t size = (end - begin + warps - 1) / warps;
  const int64_t first = min(begin + warp * size, end);
  return {first, min(first + size, end)};
}

// The slot's expert, or -1.
__device__ int expert_at(const RoutePlan& task, int64_t slot, int32_t* flags) {
  const int64_t expert = task.expert_of[slot];
  if (expert >= 0 && expert < task.experts) {
    return static_cast<int>(expert);
  }
  if (expert != -1) {
    raise(flags, BadValue::TopIdx);
  }
  return -1;
}

// tally[expert] += the slots of the piece. `tally` belongs to this warp.
__device__ void count_piece(const RoutePlan& task, Piece piece, uint16_t* tally, int32_t* flags) {
  const int lane = threadIdx.x % kWarp;
  for (int64_t begin = piece.begin; begin < piece.end; begin += kWarp) {
    const int64_t slot = begin + lane;
    const int expert = slot < piece.end ? expert_at(task, slot, flags) : -1;
    const unsigned same = __match_any_sync(kAllLanes, expert);
    if (expert >= 0 && lane == __ffs(same) - 1) {
      tally[expert] += __popc(same);
    }
    __syncwarp();
  }
}

// Gives each slot of the piece its row: base(expert) + next[expert]++, in the order of the slots.
template <typename Base>
__device__ void place_piece(const RoutePlan& task, Piece piece, uint16_t* next, int32_t* flags, const Base& base) {
  const int lane = threadIdx.x % kWarp;
  for (int64_t begin = piece.begin; begin < piece.end; begin += kWarp) {
    const int64_t slot = begin + lane;
    const int expert = slot < piece.end ? expert_at(task, slot, flags) : -1;
    const unsigned same = __match_any_sync(kAllLanes, expert);
    int64_t row = -1;
    if (expert >= 0) {
      row = base(expert) + next[expert] + __popc(same & ((1u << lane) - 1));
      task.row_slot[row] = slot;
    }
    if (slot < piece.end) {
      task.slot_row[slot] = row;
    }
    __syncwarp();
    if (expert >= 0 && lane == __ffs(same) - 1) {
      next[expert] += __popc(same);
    }
    __syncwarp();
  }
}

// tallies [warps, N]: counts of the warps -> where each warp begins inside the block. Returns the block's count.
__device__ int prefix_over_warps(uint16_t* tallies, int experts, int expert, int warps) {
  int total = 0;
  for (int warp = 0; warp < warps; ++warp) {
    const int count = tallies[warp * experts + expert];
    tallies[warp * experts + expert] = static_cast<uint16_t>(total);
    total += count;
  }
  return total;
}

// Exclusive prefix over the threads of the block; `total` is the same on all of them.
__device__ int64_t prefix_over_threads(int64_t value, int64_t& total) {
  __shared__ int64_t sums[kWarp];
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp, warps = blockDim.x / kWarp;
  int64_t inclusive = value;
  for (int distance = 1; distance < kWarp; distance *= 2) {
    const int64_t other = __shfl_up_sync(kAllLanes, inclusive, distance);
    inclusive += lane >= distance ? other : 0;
  }
  __syncthreads();
  if (lane == kWarp - 1) {
    sums[warp] = inclusive;
  }
  __syncthreads();
  int64_t before = 0;
  total = 0;
  for (int i = 0; i < warps; ++i) {
    before += i < warp ? sums[i] : 0;
    total += sums[i];
  }
  return before + inclusive - value;
}

// counts and offsets from count_of(expert), by one block.
template <typename CountOf>
__device__ void write_offsets(const RoutePlan& task, const CountOf& count_of) {
  int64_t before = 0;
  for (int begin = 0; begin < task.experts; begin += blockDim.x) {
    const int expert = begin + threadIdx.x;
    const int64_t count = expert < task.experts ? count_of(expert) : 0;
    int64_t total = 0;
    const int64_t offset = before + prefix_over_threads(count, total);
    if (expert < task.experts) {
      task.counts[expert] = count;
      task.offsets[expert] = offset;
    }
    before += total;
  }
  if (threadIdx.x == 0) {
    task.offsets[task.experts] = before;
  }
}

__device__ void clear(uint16_t* tallies, int count) {
  for (int i = threadIdx.x; i < count; i += blockDim.x) {
    tallies[i] = 0;
  }
}

__global__ void sort_in_one_block(RoutePlan task, int32_t* flags) {
  extern __shared__ uint16_t tallies[];
  const int warps = blockDim.x / kWarp, warp = threadIdx.x / kWarp;
  uint16_t* own = tallies + warp * task.experts;
  const Piece piece = piece_of(0, task.slots, warp, warps);
  clear(tallies, warps * task.experts);
  __syncthreads();
  count_piece(task, piece, own, flags);
  __syncthreads();
  write_offsets(task, [&](int expert) { return prefix_over_warps(tallies, task.experts, expert, warps); });
  __syncthreads();
  place_piece(task, piece, own, flags, [&](int expert) { return task.offsets[expert]; });
  for (int64_t row = task.offsets[task.experts] + threadIdx.x; row < task.slots; row += blockDim.x) {
    task.row_slot[row] = -1;
  }
}

// workspace [blocks, N]: counts, then where each block begins inside its expert.
__global__ void count_blocks(RoutePlan task, int64_t slots_per_block, int32_t* flags) {
  extern __shared__ uint16_t tallies[];
  const int warps = blockDim.x / kWarp, warp = threadIdx.x / kWarp;
  const int64_t begin = blockIdx.x * slots_per_block, end = min(begin + slots_per_block, task.slots);
  clear(tallies, warps * task.experts);
  __syncthreads();
  count_piece(task, piece_of(begin, end, warp, warps), tallies + warp * task.experts, flags);
  __syncthreads();
  for (int expert = threadIdx.x; expert < task.experts; expert += blockDim.x) {
    task.workspace[blockIdx.x * int64_t{task.experts} + expert] =
        prefix_over_warps(tallies, task.experts, expert, warps);
  }
}

__global__ void sum_blocks(RoutePlan task, int blocks) {
  write_offsets(task, [&](int expert) {
    int32_t* column = task.workspace + expert;
    int64_t total = 0;
#pragma unroll 8
    for (int block = 0; block < blocks; ++block) {
      const int32_t count = column[block * int64_t{task.experts}];
      column[block * int64_t{task.experts}] = static_cast<int32_t>(total);
      total += count;
    }
    return total;
  });
}

__global__ void place_blocks(RoutePlan task, int64_t slots_per_block, int32_t* flags) {
  extern __shared__ uint16_t tallies[];
  const int warps = blockDim.x / kWarp, warp = threadIdx.x / kWarp;
  const int64_t begin = blockIdx.x * slots_per_block, end = min(begin + slots_per_block, task.slots);
  const Piece piece = piece_of(begin, end, warp, warps);
  uint16_t* own = tallies + warp * task.experts;
  clear(tallies, warps * task.experts);
  __syncthreads();
  count_piece(task, piece, own, flags);
  __syncthreads();
  for (int expert = threadIdx.x; expert < task.experts; expert += blockDim.x) {
    prefix_over_warps(tallies, task.experts, expert, warps);
  }
  __syncthreads();
  const int32_t* start = task.workspace + blockIdx.x * int64_t{task.experts};
  place_piece(task, piece, own, flags, [&](int expert) { return task.offsets[expert] + start[expert]; });
  const int64_t used = task.offsets[task.experts];
  for (int64_t row = begin + threadIdx.x; row < end; row += blockDim.x) {
    if (row >= used) {
      task.row_slot[row] = -1;
    }
  }
}

struct Cut {
  int64_t blocks;
  int64_t slots_per_block;
};

Cut cut(int64_t slots) {
  const int64_t blocks = std::max<int64_t>(1, std::min(divide_up(slots, kSlotsPerBlock), kMaximumBlocks));
  return {blocks, divide_up(slots, blocks)};
}

bool fits_one_block(int64_t slots, int experts) {
  return slots <= kSingleBlockSlots && experts <= kSingleBlockExperts;
}

// More than 48 KB of shared memory must be asked for, on each device.
template <typename Kernel>
int tally_bytes(Kernel* kernel, int warps, int experts) {
  const int bytes = warps * experts * static_cast<int>(sizeof(uint16_t));
  if (bytes > 48 * 1024) {
    check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes));
  }
  return bytes;
}

}  // namespace

int64_t route_plan_workspace(int64_t slots, int experts) {
  return fits_one_block(slots, experts) ? 0 : cut(slots).blocks * experts;
}

void plan_route(const RoutePlan& task, cudaStream_t stream) {
  int32_t* flags = error_flags();
  if (fits_one_block(task.slots, task.experts)) {
    const int warps = static_cast<int>(std::max<int64_t>(1, std::min<int64_t>(kWarp, divide_up(task.slots, 64))));
    const int bytes = tally_bytes(sort_in_one_block, warps, task.experts);
    sort_in_one_block<<<1, warps * kWarp, bytes, stream>>>(task, flags);
    check(cudaGetLastError());
    return;
  }
  const auto [blocks, slots_per_block] = cut(task.slots);
  // A warp's share fits its 16-bit counters: 65535 slots a warp, kMaximumBlocks * kBlockWarps warps.
  if (divide_up(slots_per_block, kBlockWarps) > 65535) {
    throw std::runtime_error("fmoe::route_plan: more than 2^28 slots are not supported on CUDA");
  }
  const auto grid = static_cast<unsigned>(blocks);
  const int threads = kBlockWarps * kWarp;
  count_blocks<<<grid, threads, tally_bytes(count_blocks, kBlockWarps, task.experts), stream>>>(
      task, slots_per_block, flags);
  sum_blocks<<<1, kSumThreads, 0, stream>>>(task, static_cast<int>(blocks));
  place_blocks<<<grid, threads, tally_bytes(place_blocks, kBlockWarps, task.experts), stream>>>(
      task, slots_per_block, flags);
  check(cudaGetLastError());
}

}  // namespace fmoe::cuda
