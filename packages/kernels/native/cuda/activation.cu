// What lies between the two products of the expert MLP, forward and backward, in one pass each.
#include "cuda/device.cuh"

#include <algorithm>

namespace fmoe::cuda {

namespace {

constexpr double kSqrtHalf = 0.70710678118654752440;
constexpr double kInverseSqrtTwoPi = 0.39894228040143267794;
constexpr double kSqrtTwoOverPi = 0.79788456080286535588;
constexpr double kTanhCubic = 0.044715;

__device__ inline float error_function(float x) { return erff(x); }
__device__ inline double error_function(double x) { return erf(x); }
__device__ inline float hyperbolic_tangent(float x) { return tanhf(x); }
__device__ inline double hyperbolic_tangent(double x) { return tanh(x); }

// f(x) and f'(x) of the function that makes (or gates) the hidden units.
template <Activation kActivation, typename A>
__device__ inline void activate(A x, A& value, A& slope) {
  if constexpr (kActivation == Activation::Gelu || kActivation == Activation::GeGlu) {
    const A below = A(0.5) * (A(1) + error_function(x * A(kSqrtHalf)));
    value = x * below;
    slope = below + x * A(kInverseSqrtTwoPi) * exponential(A(-0.5) * x * x);
  } else if constexpr (kActivation == Activation::GeluTanh) {
    const A inner = A(kSqrtTwoOverPi) * (x + A(kTanhCubic) * x * x * x);
    const A bend = hyperbolic_tangent(inner);
    value = A(0.5) * x * (A(1) + bend);
    slope = A(0.5) * (A(1) + bend) +
            A(0.5) * x * (A(1) - bend * bend) * A(kSqrtTwoOverPi) * (A(1) + A(3 * kTanhCubic) * x * x);
  } else if constexpr (kActivation == Activation::Relu || kActivation == Activation::ReGlu) {
    // A NaN stays one.
    value = x <= A(0) ? A(0) : x;
    slope = x <= A(0) ? A(0) : A(1);
  } else {
    const A sigmoid = A(1) / (A(1) + exponential(-x));
    value = x * sigmoid;
    slope = sigmoid * (A(1) + x * (A(1) - sigmoid));
  }
}

// The activation as a compile-time constant, for rows of whole vectors.
template <Activation kActivation>
struct Fixed {
  static constexpr bool gated = is_gated(kActivation);
  template <typename A>
  __device__ void operator()(A x, A& value, A& slope) const {
    activate<kActivation>(x, value, slope);
  }
};

// The activation as an argument: slower, and one kernel instead of seven.
struct Chosen {
  Activation activation;
  bool gated;
  template <typename A>
  __device__ void operator()(A x, A& value, A& slope) const {
    switch (activation) {
      case Activation::Gelu:
      case Activation::GeGlu:
        return activate<Activation::Gelu>(x, value, slope);
      case Activation::GeluTanh:
        return activate<Activation::GeluTanh>(x, value, slope);
      case Activation::Relu:
      case Activation::ReGlu:
        return activate<Activation::Relu>(x, value, slope);
      default:
        return activate<Activation::Silu>(x, value, slope);
    }
  }
};

template <typename T, int kSize, typename Function>
__global__ void activation_forward_kernel(ActivationForward task, Function function) {
  using V = Vector<T, kSize>;
  using A = Accumulator<T>;
  const bool gated = function.gated;
  const int64_t vectors = task.hidden / kSize, pre_vectors = gated ? 2 * vectors : vectors;
  auto* pre = static_cast<V*>(task.pre);
  auto* out = static_cast<V*>(task.out);
  const auto* bias = static_cast<const V*>(task.bias);
  const int64_t used = min(task.offsets[task.experts], task.rows);
  const int64_t count = task.rows * vectors, step = int64_t{gridDim.x} * blockDim.x;
  for (int64_t index = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; index < count; index += step) {
    const int64_t row = (count >> 32) == 0 ? static_cast<uint32_t>(index) / static_cast<uint32_t>(vectors)
                                           : index / vectors;
    const int64_t vector = index - row * vectors;
    V* first = pre + row * pre_vectors + vector;
    V* second = first + (gated ? vectors : 0);
    if (row >= used) {
      *first = V{};
      *second = V{};
      out[index] = V{};
      continue;
    }
    V gate = *first, linear = *second;
    if (bias != nullptr) {
      const V* addend = bias + expert_of_row(task.offsets, task.experts, row) * pre_vectors + vector;
      const V first_addend = addend[0], second_addend = addend[gated ? vectors : 0];
#pragma unroll
      for (int i = 0; i < kSize; ++i) {
        gate.lane[i] = narrow<T>(widen(gate.lane[i]) + widen(first_addend.lane[i]));
        linear.lane[i] = narrow<T>(widen(linear.lane[i]) + widen(second_addend.lane[i]));
      }
      *first = gate;
      if (gated) {
        *second = linear;
      }
    }
    V result;
#pragma unroll
    for (int i = 0; i < kSize; ++i) {
      A value, slope;
      function(A(widen(gate.lane[i])), value, slope);
      result.lane[i] = narrow<T>(gated ? value * widen(linear.lane[i]) : value);
    }
    out[index] = result;
  }
}

// One warp a row: each lane keeps its part of ⟨d, a⟩, and the warp adds the parts by a fixed tree.
template <typename T, int kSize, typename Function>
__global__ void activation_backward_kernel(
    ActivationBackward task, Function function, int32_t* flags) {
  using V = Vector<T, kSize>;
  using A = Accumulator<T>;
  const bool gated = function.gated;
  const int64_t row = int64_t{blockIdx.x} * (kThreads / kWarp) + threadIdx.x / kWarp;
  if (row >= task.rows) {
    return;
  }
  const int lane = threadIdx.x % kWarp;
  const int64_t vectors = task.hidden / kSize, pre_vectors = gated ? 2 * vectors : vectors;
  const auto* pre = static_cast<const V*>(task.pre) + row * pre_vectors;
  auto* inner = static_cast<V*>(task.inner) + row * vectors;
  auto* pre_grad = static_cast<V*>(task.pre_grad) + row * pre_vectors;
  const int64_t slot = guarded(task.row_slot[row], task.slots, flags, BadValue::RowSlot);
  if (slot < 0) {
    for (int64_t vector = lane; vector < vectors; vector += kWarp) {
      inner[vector] = V{};
      pre_grad[vector] = V{};
      pre_grad[vector + (gated ? vectors : 0)] = V{};
    }
    return;
  }
  const A score = static_cast<const A*>(task.score)[slot];
  A product = 0;
  for (int64_t vector = lane; vector < vectors; vector += kWarp) {
    const V gate = pre[vector], linear = pre[vector + (gated ? vectors : 0)], incoming = inner[vector];
    V scaled, gate_grad, linear_grad;
#pragma unroll
    for (int i = 0; i < kSize; ++i) {
      A value, slope;
      function(A(widen(gate.lane[i])), value, slope);
      const A d = widen(incoming.lane[i]), weight = gated ? A(widen(linear.lane[i])) : A(1);
      const A a = value * weight;
      product += d * a;
      scaled.lane[i] = narrow<T>(score * a);
      gate_grad.lane[i] = narrow<T>(score * d * weight * slope);
      linear_grad.lane[i] = narrow<T>(score * d * value);
    }
    inner[vector] = scaled;
    pre_grad[vector] = gate_grad;
    if (gated) {
      pre_grad[vector + vectors] = linear_grad;
    }
  }
  product = sum_of_warp(product);
  if (task.b2 != nullptr) {
    const int64_t expert = expert_of_row(task.offsets, task.experts, row);
    const auto* grad = static_cast<const T*>(task.grad) + slot / task.choices * task.features;
    const auto* b2 = static_cast<const T*>(task.b2) + (expert < 0 ? 0 : expert) * task.features;
    A bias_product = 0;
    for (int64_t feature = lane; feature < task.features; feature += kWarp) {
      bias_product += A(widen(grad[feature])) * A(widen(b2[feature]));
    }
    product += sum_of_warp(bias_product);
  }
  if (lane == 0) {
    static_cast<A*>(task.score_grad)[slot] = product;
  }
}

// Calls launch(vector size, function).
template <typename T, typename Launch>
void with_function(Activation activation, bool wide, const Launch& launch) {
  constexpr int kSize = kWide<T>;
  if constexpr (kSize > 1) {
#define FMOE_CASE(NAME)  \
  case Activation::NAME: \
    return launch(std::integral_constant<int, kSize>{}, Fixed<Activation::NAME>{})
    if (wide) {
      switch (activation) {
        FMOE_CASE(Gelu);
        FMOE_CASE(GeluTanh);
        FMOE_CASE(Relu);
        FMOE_CASE(Silu);
        FMOE_CASE(SwiGlu);
        FMOE_CASE(GeGlu);
        FMOE_CASE(ReGlu);
      }
    }
#undef FMOE_CASE
  }
  launch(std::integral_constant<int, 1>{}, Chosen{activation, is_gated(activation)});
}

}  // namespace

void activation_forward(const ActivationForward& task, cudaStream_t stream) {
  if (task.rows * task.hidden == 0) {
    return;
  }
  with_dtype(task.dtype, [&](auto element) {
    using T = decltype(element);
    const bool wide = is_wide<T>(task.hidden, task.pre, task.out, task.bias);
    with_function<T>(task.activation, wide, [&](auto size, auto function) {
      const auto blocks = static_cast<unsigned>(
          std::min<int64_t>(divide_up(task.rows * (task.hidden / size()), kThreads), 1 << 20));
      activation_forward_kernel<T, size()><<<blocks, kThreads, 0, stream>>>(task, function);
    });
  });
  check(cudaGetLastError());
}

void activation_backward(const ActivationBackward& task, cudaStream_t stream) {
  if (task.rows == 0) {
    return;
  }
  with_dtype(task.dtype, [&](auto element) {
    using T = decltype(element);
    const bool wide = is_wide<T>(task.hidden, task.pre, task.inner, task.pre_grad);
    with_function<T>(task.activation, wide, [&](auto size, auto function) {
      activation_backward_kernel<T, size()><<<blocks_of_warps(task.rows), kThreads, 0, stream>>>(
          task, function, error_flags());
    });
  });
  check(cudaGetLastError());
}

}  // namespace fmoe::cuda
