// What the kernels share: element types, 16-byte vectors, groups of rows, launch sizes.
#pragma once

#include "cuda/kernels.h"

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <algorithm>
#include <stdexcept>
#include <type_traits>
#include <string>

namespace fmoe::cuda {

constexpr int kWarp = 32;
constexpr unsigned kAllLanes = 0xffffffffu;
// Threads of a block where the kernel does not ask for another number.
constexpr int kThreads = 256;

inline void check(cudaError_t status) {
  if (status != cudaSuccess) {
    throw std::runtime_error(std::string("CUDA error: ") + cudaGetErrorString(status));
  }
}

inline int64_t divide_up(int64_t value, int64_t by) {
  return (value + by - 1) / by;
}

// Blocks of kThreads that have a warp for each of `count` items.
inline unsigned blocks_of_warps(int64_t count) {
  return static_cast<unsigned>(divide_up(count, kThreads / kWarp));
}

// Calls function(T{}) with the element type of `dtype`.
template <typename Function>
void with_dtype(Dtype dtype, const Function& function) {
  switch (dtype) {
    case Dtype::Float64:
      return function(double{});
    case Dtype::Float32:
      return function(float{});
    case Dtype::Float16:
      return function(__half{});
    case Dtype::BFloat16:
      return function(__nv_bfloat16{});
  }
}

template <typename T>
struct AccumulatorOf {
  using type = float;
};
template <>
struct AccumulatorOf<double> {
  using type = double;
};
template <typename T>
using Accumulator = typename AccumulatorOf<T>::type;

__device__ inline double widen(double value) { return value; }
__device__ inline float widen(float value) { return value; }
__device__ inline float widen(__half value) { return __half2float(value); }
__device__ inline float widen(__nv_bfloat16 value) { return __bfloat162float(value); }

template <typename T>
__device__ inline T narrow(Accumulator<T> value) { return value; }
template <>
__device__ inline __half narrow<__half>(float value) { return __float2half_rn(value); }
template <>
__device__ inline __nv_bfloat16 narrow<__nv_bfloat16>(float value) { return __float2bfloat16_rn(value); }

// kSize elements that are read and written at once. 16 bytes where the rows allow it, else one element.
template <typename T, int kSize>
struct alignas(sizeof(T) * kSize) Vector {
  T lane[kSize];
};

// float64 is for checks: it goes element by element, which spares a quarter of the kernels.
template <typename T>
constexpr int kWide = sizeof(T) == 8 ? 1 : 16 / static_cast<int>(sizeof(T));

// Whether rows of `features` elements, one after the other from these addresses, can be read in 16-byte pieces.
template <typename T, typename... Pointers>
bool is_wide(int64_t features, const Pointers*... pointers) {
  return features % kWide<T> == 0 && ((reinterpret_cast<uintptr_t>(pointers) % 16 == 0) && ...);
}

// Launches by launch(T{}, size) with the element type and the number of elements of a vector that rows of `features` at these
// addresses allow, both known at compile time.
template <typename Launch, typename... Pointers>
void with_vectors(Dtype dtype, int64_t features, const Launch& launch, const Pointers*... pointers) {
  with_dtype(dtype, [&](auto element) {
    using T = decltype(element);
    if (is_wide<T>(features, pointers...)) {
      launch(element, std::integral_constant<int, kWide<T>>{});
    } else {
      launch(element, std::integral_constant<int, 1>{});
    }
  });
  check(cudaGetLastError());
}

// The sum over the lanes of a warp, on all of them, by a fixed tree.
template <typename A>
__device__ inline A sum_of_warp(A value) {
  for (int distance = kWarp / 2; distance > 0; distance /= 2) {
    value += __shfl_xor_sync(kAllLanes, value, distance);
  }
  return value;
}

__device__ inline float exponential(float x) { return expf(x); }
__device__ inline double exponential(double x) { return exp(x); }

// Rows [begin, end) of an expert, always inside [0, rows]; `bad` where the offsets do not say that by themselves.
struct Group {
  int64_t begin;
  int64_t end;
  bool bad;
};

__device__ inline Group group_of(const int64_t* offsets, int64_t expert, int64_t rows) {
  const int64_t begin = offsets[expert], end = offsets[expert + 1];
  const int64_t first = min(max(begin, int64_t{0}), rows), last = min(max(end, first), rows);
  return {first, last, begin != first || end != last || (expert == 0 && begin != 0)};
}

// The expert of a row, or -1 for rows past the last one. `offsets` must not decrease.
__device__ inline int64_t expert_of_row(const int64_t* offsets, int64_t experts, int64_t row) {
  if (row >= offsets[experts]) {
    return -1;
  }
  int64_t low = 0, high = experts;  // offsets[low] <= row < offsets[high]
  while (high - low > 1) {
    const int64_t middle = (low + high) / 2;
    (offsets[middle] <= row ? low : high) = middle;
  }
  return low;
}

__device__ inline void raise(int32_t* flags, BadValue what) {
  flags[static_cast<int>(what)] = 1;
}

// A slot or row number as it may be used: in [0, limit) or -1.
__device__ inline int64_t guarded(int64_t index, int64_t limit, int32_t* flags, BadValue what) {
  if (index >= 0 && index < limit) {
    return index;
  }
  if (index != -1) {
    raise(flags, what);
  }
  return -1;
}

}  // namespace fmoe::cuda
