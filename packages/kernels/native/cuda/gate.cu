// Top-k gating and its backward, one warp a token, and the capacity limits.
#include "cuda/device.cuh"

#include <algorithm>

namespace fmoe::cuda {

namespace {

constexpr int kMaximumWarps = 8;
constexpr int kSharedBytes = 32 * 1024;

__device__ inline float logarithm_of_one_plus(float x) { return log1pf(x); }
__device__ inline double logarithm_of_one_plus(double x) { return log1p(x); }

template <typename A>
__device__ inline A infinity() {
  return static_cast<A>(__int_as_float(0x7f800000));
}

template <typename A>
__device__ inline A sigmoid(A x) {
  return A(1) / (A(1) + exponential(-x));
}

// log(1 / (1 + exp(-x))) without overflow
template <typename A>
__device__ inline A log_sigmoid(A x) {
  return min(x, A(0)) - logarithm_of_one_plus(exponential(-abs(x)));
}

template <typename A>
__device__ inline A largest_of_warp(A value) {
  for (int distance = kWarp / 2; distance > 0; distance /= 2) {
    value = max(value, __shfl_xor_sync(kAllLanes, value, distance));
  }
  return value;
}

// exp(value[i] - maximum) and its sum's inverse, over the warp; all zeros where every value is -inf.
template <typename A>
struct Softmax {
  A maximum;
  A scale;

  template <typename ValueAt>
  __device__ Softmax(int count, const ValueAt& value_at) {
    const int lane = threadIdx.x % kWarp;
    A highest = -infinity<A>();
    for (int i = lane; i < count; i += kWarp) {
      highest = max(highest, value_at(i));
    }
    maximum = largest_of_warp(highest);
    A total = 0;
    for (int i = lane; i < count; i += kWarp) {
      total += maximum == -infinity<A>() ? A(0) : exponential(value_at(i) - maximum);
    }
    total = sum_of_warp(total);
    scale = total > A(0) ? A(1) / total : A(0);
  }

  __device__ A operator()(A value) const { return scale == A(0) ? A(0) : exponential(value - maximum) * scale; }
};

// Scores that add up to 1 are a softmax over the chosen: of the logits, or of the logarithms of their sigmoids.
__device__ inline bool over_chosen(ScoreFunction function, bool normalize) {
  return normalize || function == ScoreFunction::SoftmaxChosen;
}

template <typename T>
__global__ void topk_gate_kernel(TopkGate task, int32_t* flags) {
  using A = Accumulator<T>;
  extern __shared__ __align__(16) unsigned char shared[];
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  const int64_t token = int64_t{blockIdx.x} * (blockDim.x / kWarp) + warp;
  if (token >= task.tokens) {
    return;
  }
  // The logits of this warp's token.
  A* logit = reinterpret_cast<A*>(shared) + warp * task.experts;
  const T* row = static_cast<const T*>(task.logits) + token * task.experts;
  const A* bias = static_cast<const A*>(task.bias);
  bool bad = false, bad_bias = false;
  for (int expert = lane; expert < task.experts; expert += kWarp) {
    // The bias is the same for all tokens: the first one looks at it.
    bad_bias = bad_bias || (token == 0 && bias != nullptr && !(abs(bias[expert]) < infinity<A>()));
    const A value = widen(row[expert]);
    const bool usable = value < infinity<A>();  // false for NaN as well
    bad = bad || !usable;
    logit[expert] = usable ? value : -infinity<A>();
  }
  __syncwarp();
  const bool chosen_only = over_chosen(task.function, task.normalize);
  const bool all = task.function == ScoreFunction::Softmax && (bias != nullptr || !task.normalize);
  const Softmax<A> probability(all ? task.experts : 0, [&](int expert) { return logit[expert]; });
  const auto key_of = [&](int expert) {
    const A value = logit[expert];
    if (bias == nullptr) {
      return value;
    }
    const A key = bias[expert] + (task.function == ScoreFunction::SoftmaxChosen ? value
                                  : task.function == ScoreFunction::Softmax     ? probability(value)
                                                                                : sigmoid(value));
    return key < infinity<A>() ? key : -infinity<A>();
  };

  int64_t* top_idx = task.top_idx + token * task.choices;
  A* top_score = static_cast<A*>(task.top_score) + token * task.choices;
  // Each round takes what comes right after the last one in the order (key down, expert up).
  A last_key = infinity<A>();
  int last = -1;
  for (int choice = 0; choice < task.choices; ++choice) {
    A best_key = -infinity<A>();
    int best = task.experts;
    for (int expert = lane; expert < task.experts; expert += kWarp) {
      const A key = key_of(expert);
      const bool left = key < last_key || (key == last_key && expert > last);
      if (left && (best == task.experts || key > best_key)) {
        best_key = key;
        best = expert;
      }
    }
    for (int distance = kWarp / 2; distance > 0; distance /= 2) {
      const A other_key = __shfl_xor_sync(kAllLanes, best_key, distance);
      const int other = __shfl_xor_sync(kAllLanes, best, distance);
      if (other < task.experts &&
          (best == task.experts || other_key > best_key || (other_key == best_key && other < best))) {
        best_key = other_key;
        best = other;
      }
    }
    last_key = best_key;
    last = best;
    if (lane == 0) {
      top_idx[choice] = best;
      const A value = logit[best];
      top_score[choice] = chosen_only ? (task.function == ScoreFunction::Sigmoid ? log_sigmoid(value) : value)
          : all                       ? probability(value)
                                      : sigmoid(value);
    }
  }
  __syncwarp();
  if (chosen_only) {
    const Softmax<A> score(task.choices, [&](int choice) { return top_score[choice]; });
    for (int choice = lane; choice < task.choices; choice += kWarp) {
      top_score[choice] = score(top_score[choice]);
    }
  }
  if (bad) {
    raise(flags, BadValue::Logits);
  }
  if (bad_bias) {
    raise(flags, BadValue::SelectionBias);
  }
}

template <typename T>
__global__ void topk_gate_backward_kernel(TopkGateBackward task) {
  using A = Accumulator<T>;
  const int lane = threadIdx.x % kWarp;
  const int64_t token = int64_t{blockIdx.x} * (blockDim.x / kWarp) + threadIdx.x / kWarp;
  if (token >= task.tokens) {
    return;
  }
  const T* logit = static_cast<const T*>(task.logits) + token * task.experts;
  const int64_t* top_idx = task.top_idx + token * task.choices;
  const A* score = static_cast<const A*>(task.top_score) + token * task.choices;
  const A* grad = static_cast<const A*>(task.grad) + token * task.choices;
  T* out = static_cast<T*>(task.logits_grad) + token * task.experts;
  A mean = 0;
  for (int choice = 0; choice < task.choices; ++choice) {
    mean += grad[choice] * score[choice];
  }
  const auto value_at = [&](int expert) {
    const A value = widen(logit[expert]);
    return value < infinity<A>() ? value : -infinity<A>();
  };
  const bool chosen_only = over_chosen(task.function, task.normalize);
  const bool all = !chosen_only && task.function == ScoreFunction::Softmax;
  const Softmax<A> probability(all ? task.experts : 0, value_at);
  for (int expert = lane; expert < task.experts; expert += kWarp) {
    A value = all ? -mean * probability(value_at(expert)) : A(0);
    for (int choice = 0; choice < task.choices; ++choice) {
      if (top_idx[choice] == expert) {
        A part = score[choice] * (chosen_only ? grad[choice] - mean : grad[choice]);
        if (task.function == ScoreFunction::Sigmoid) {
          part *= sigmoid(-value_at(expert));
        }
        value += part;
      }
    }
    out[expert] = narrow<T>(value);
  }
}

__global__ void prune_kernel(Prune task) {
  const int64_t slots = task.tokens * task.choices, step = int64_t{gridDim.x} * blockDim.x;
  for (int64_t slot = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; slot < slots; slot += step) {
    const int64_t row = task.plan_row[slot], expert = task.expert_of[slot];
    const bool room = row >= 0 && row - task.offsets[expert] < task.budget[expert];
    task.kept[slot % task.tokens * task.choices + slot / task.tokens] = room ? expert : -1;
  }
}

__global__ void limit_kernel(
    int64_t* granted, const int64_t* count, const int64_t* capacity, int64_t ranks, int64_t experts, int32_t* flags) {
  const int64_t expert = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (expert >= experts) {
    return;
  }
  const auto at_least_zero = [&](int64_t value, BadValue what) {
    if (value < 0) {
      raise(flags, what);
    }
    return max(value, int64_t{0});
  };
  int64_t left = at_least_zero(capacity[expert], BadValue::Capacity);
  for (int64_t rank = 0; rank < ranks; ++rank) {
    const int64_t grant = min(at_least_zero(count[rank * experts + expert], BadValue::Counts), left);
    granted[rank * experts + expert] = grant;
    left -= grant;
  }
}

__global__ void compare_kernel(const int64_t* ends, const int64_t* offsets, int64_t experts, int32_t* flags) {
  const int64_t expert = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (expert < experts && ends[expert] != offsets[expert + 1]) {
    raise(flags, BadValue::Offsets);
  }
}

}  // namespace

void choose_experts(const TopkGate& task, cudaStream_t stream) {
  if (task.tokens == 0) {
    return;
  }
  with_dtype(task.dtype, [&](auto element) {
    using T = decltype(element);
    const int row_bytes = task.experts * static_cast<int>(sizeof(Accumulator<T>));
    const int warps = std::clamp(kSharedBytes / row_bytes, 1, kMaximumWarps);
    const int bytes = warps * row_bytes;
    if (bytes > 48 * 1024) {
      check(cudaFuncSetAttribute(topk_gate_kernel<T>, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes));
    }
    const auto blocks = static_cast<unsigned>(divide_up(task.tokens, warps));
    topk_gate_kernel<T><<<blocks, warps * kWarp, bytes, stream>>>(task, error_flags());
  });
  check(cudaGetLastError());
}

void choose_experts_backward(const TopkGateBackward& task, cudaStream_t stream) {
  if (task.tokens == 0) {
    return;
  }
  with_dtype(task.dtype, [&](auto element) {
    using T = decltype(element);
    topk_gate_backward_kernel<T><<<blocks_of_warps(task.tokens), kThreads, 0, stream>>>(task);
  });
  check(cudaGetLastError());
}

void prune(const Prune& task, cudaStream_t stream) {
  const int64_t slots = task.tokens * task.choices;
  if (slots == 0) {
    return;
  }
  const auto blocks = static_cast<unsigned>(std::min<int64_t>(divide_up(slots, kThreads), 1 << 16));
  prune_kernel<<<blocks, kThreads, 0, stream>>>(task);
  check(cudaGetLastError());
}

void limit_counts(
    int64_t* granted, const int64_t* count, const int64_t* capacity, int64_t ranks, int64_t experts,
    cudaStream_t stream) {
  if (experts == 0) {
    return;
  }
  limit_kernel<<<static_cast<unsigned>(divide_up(experts, kThreads)), kThreads, 0, stream>>>(
      granted, count, capacity, ranks, experts, error_flags());
  check(cudaGetLastError());
}

void compare_ends(const int64_t* ends, const int64_t* offsets, int64_t experts, cudaStream_t stream) {
  if (experts == 0) {
    return;
  }
  compare_kernel<<<static_cast<unsigned>(divide_up(experts, kThreads)), kThreads, 0, stream>>>(
      ends, offsets, experts, error_flags());
  check(cudaGetLastError());
}

}  // namespace fmoe::cuda
