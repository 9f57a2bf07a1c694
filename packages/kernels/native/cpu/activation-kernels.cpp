// Compiled several times with CPU_CAPABILITY set to DEFAULT, AVX2 and AVX512. Keep non-inline code out of headers
// included here: the linker may keep the copy of any of the three.
#include "cpu/activation-kernels.h"

#include <ATen/cpu/vec/functional.h>
#include <ATen/cpu/vec/vec.h>

#include <cmath>

namespace fmoe::cpu {

namespace CPU_CAPABILITY {

namespace {

template <typename T>
using Vector = at::vec::Vectorized<T>;

template <typename T>
struct ValueAndSlope {
  Vector<T> value, slope;
};

template <typename T>
Vector<T> sigmoid(const Vector<T>& x) {
  return Vector<T>(1) / (Vector<T>(1) + x.neg().exp());
}

// Each activation is written once, with its derivative; where only the value is used the compiler drops the rest.
struct Relu {
  template <typename T>
  static ValueAndSlope<T> at(const Vector<T>& x) {
    const Vector<T> zero(0);
    // A comparison with NaN is false, and NaN must pass through.
    const auto off = x <= zero;
    return {Vector<T>::blendv(x, zero, off), Vector<T>::blendv(Vector<T>(1), zero, off)};
  }
};

struct Silu {
  template <typename T>
  static ValueAndSlope<T> at(const Vector<T>& x) {
    const Vector<T> one(1), s = sigmoid(x);
    return {x * s, s * at::vec::fmadd(x, one - s, one)};
  }
};

// x · (1 + tanh(u)) / 2 = x · sigmoid(2u) with u = √(2/π) · (x + 0.044715 x³)
struct GeluTanh {
  template <typename T>
  static ValueAndSlope<T> at(const Vector<T>& x) {
    constexpr double kTwice = 1.5957691216057308;  // 2 √(2/π)
    constexpr double kCubic = 0.044715;
    const Vector<T> one(1), square = x * x;
    const Vector<T> s = sigmoid(Vector<T>(kTwice) * x * at::vec::fmadd(Vector<T>(kCubic), square, one));
    const Vector<T> inner = Vector<T>(kTwice) * at::vec::fmadd(Vector<T>(3 * kCubic), square, one);
    return {x * s, s * at::vec::fmadd(x * inner, one - s, one)};
  }
};

// exp(x) for x <= 0 to 1.3 roundings, 0 below -87.7: 2ⁿ · exp(r) with |r| <= ln 2 / 2. ln 2 is taken off in two parts, of which
// the first has no more bits than its product with n can hold. A call to Sleef would cost twice as much.
inline Vector<float> exp_of_negative(const Vector<float>& exponent) {
  using V = Vector<float>;
  const V x = at::vec::clamp_min(exponent, V(-88));
  const V n = (x * V(M_LOG2E)).round();
  const V r = at::vec::fmadd(n, V(2.12194440e-4), at::vec::fmadd(n, V(-0.693359375), x));
  V series(1.0 / 5040);
  for (const double coefficient : {1.0 / 720, 1.0 / 120, 1.0 / 24, 1.0 / 6, 0.5, 1.0, 1.0}) {
    series = at::vec::fmadd(series, r, V(coefficient));
  }
  const V shifted = (n + V(127)) * V(1 << 23);
  return series * at::vec::cast<float>(at::vec::convert_to_int_of_same_size(shifted));
}

// x · Φ(x), whose derivative is Φ(x) + x · φ(x).
struct Gelu {
  static ValueAndSlope<double> at(const Vector<double>& x) {
    const Vector<double> cumulative = Vector<double>(0.5) * (x * Vector<double>(-M_SQRT1_2)).erfc();
    const Vector<double> density =
        Vector<double>(0.5 * M_2_SQRTPI * M_SQRT1_2) * (x * x * Vector<double>(-0.5)).exp();
    return {x * cumulative, at::vec::fmadd(x, density, cumulative)};
  }

  // One exponential serves both: Φ(-|x|) = exp(-x²/2) · erfcx(|x|/√2) / 2, where erfcx(z) = exp(z²) erfc(z) is a
  // polynomial in t = 1 / (1 + 0.3 z) without a constant term, fitted by weighted least squares to a relative error of
  // 2e-8 for z up to 10.2; past that exp(-z²) is 0 in float32.
  static ValueAndSlope<float> at(const Vector<float>& x) {
    using V = Vector<float>;
    const V one(1);
    const V t = one / at::vec::fmadd(x.abs(), V(0.3 * M_SQRT1_2), one);
    V series(-0.12954065677006044);
    for (const double coefficient :
         {0.4856564730222438, -0.51248813845329, 0.5479845263890102, -0.09485407794345874, 0.21502364974121457,
          0.14831066510007287, 0.17071985301967635, 0.169187686281979}) {
      series = at::vec::fmadd(series, t, V(coefficient));
    }
    const V bell = exp_of_negative(x * x * V(-0.5));
    const V tail = V(0.5) * bell * (series * t);
    const V cumulative = V::blendv(one - tail, tail, x < V(0));
    return {x * cumulative, at::vec::fmadd(x * V(0.5 * M_2_SQRTPI * M_SQRT1_2), bell, cumulative)};
  }
};

// Calls body(begin, count) for each vector of a row; the last may be short.
template <typename T, typename Body>
inline void for_vectors(int64_t length, const Body& body) {
  constexpr int64_t size = Vector<T>::size();
  int64_t begin = 0;
  for (; begin + size <= length; begin += size) {
    body(begin, size);
  }
  if (begin < length) {
    body(begin, length - begin);
  }
}

template <typename T>
inline Vector<T> load(const T* data, int64_t count) {
  return count == Vector<T>::size() ? Vector<T>::loadu(data) : Vector<T>::loadu(data, count);
}

template <typename T>
inline void store(T* data, const Vector<T>& value, int64_t count) {
  if (count == Vector<T>::size()) {
    value.store(data);
  } else {
    value.store(data, count);
  }
}

// The lanes added in their order.
template <typename T>
T sum_of_lanes(const Vector<T>& vector) {
  T lanes[Vector<T>::size()];
  vector.store(lanes);
  T total = 0;
  for (int lane = 0; lane < Vector<T>::size(); ++lane) {
    total += lanes[lane];
  }
  return total;
}

template <typename Function, bool gated, typename T>
void forward(const ActivationRows& task) {
  const int64_t hidden = task.hidden;
  for (int64_t row = 0; row < task.rows; ++row) {
    const T* pre = static_cast<const T*>(task.pre) + row * hidden * (gated ? 2 : 1);
    T* out = static_cast<T*>(task.out) + row * hidden;
    for_vectors<T>(hidden, [&](int64_t begin, int64_t count) {
      Vector<T> value = Function::at(load(pre + begin, count)).value;
      if constexpr (gated) {
        value = value * load(pre + hidden + begin, count);
      }
      store(out + begin, value, count);
    });
  }
}

template <typename Function, bool gated, typename T>
void backward(const ActivationRowsBackward& task) {
  const int64_t hidden = task.hidden, width = hidden * (gated ? 2 : 1);
  for (int64_t row = 0; row < task.rows; ++row) {
    const T* pre = static_cast<const T*>(task.pre) + row * width;
    T* pre_grad = static_cast<T*>(task.pre_grad) + row * width;
    T* out = static_cast<T*>(task.out) + row * hidden;
    const Vector<T> factor(static_cast<const T*>(task.factor)[row]);
    Vector<T> product(0);
    for_vectors<T>(hidden, [&](int64_t begin, int64_t count) {
      auto [value, slope] = Function::at(load(pre + begin, count));
      // Lanes past the end hold zeros, and act(0) = 0 for every activation here.
      const Vector<T> incoming = load<T>(pre_grad + begin, count), scaled = incoming * factor;
      if constexpr (gated) {
        const Vector<T> linear = load(pre + hidden + begin, count);
        store(pre_grad + hidden + begin, scaled * value, count);
        store(pre_grad + begin, scaled * linear * slope, count);
        value = value * linear;
      } else {
        store(pre_grad + begin, scaled * slope, count);
      }
      product = at::vec::fmadd(incoming, value, product);
      store(out + begin, value, count);
    });
    static_cast<T*>(task.product)[row] = sum_of_lanes(product);
  }
}

template <typename T>
void scale(const ScaleRows& task) {
  const T* bias = static_cast<const T*>(task.bias);
  for (int64_t row = 0; row < task.row_count; ++row) {
    T* data = static_cast<T*>(task.rows) + row * task.features;
    const Vector<T> factor(static_cast<const T*>(task.factor)[row]);
    Vector<T> product(0);
    for_vectors<T>(task.features, [&](int64_t begin, int64_t count) {
      const Vector<T> value = load(data + begin, count);
      if (bias != nullptr) {
        product = at::vec::fmadd(value, load(bias + begin, count), product);
      }
      store(data + begin, value * factor, count);
    });
    if (bias != nullptr) {
      static_cast<T*>(task.product)[row] += sum_of_lanes(product);
    }
  }
}

#define FMOE_ANY_ACTIVATION(kernel, T, task)          \
  switch (task.activation) {                          \
    case Activation::kGelu:                           \
      return kernel<Gelu, false, T>(task);            \
    case Activation::kGeluTanh:                       \
      return kernel<GeluTanh, false, T>(task);        \
    case Activation::kRelu:                           \
      return kernel<Relu, false, T>(task);            \
    case Activation::kSilu:                           \
      return kernel<Silu, false, T>(task);            \
    case Activation::kSwiglu:                         \
      return kernel<Silu, true, T>(task);             \
    case Activation::kGeglu:                          \
      return kernel<Gelu, true, T>(task);             \
    case Activation::kReglu:                          \
      return kernel<Relu, true, T>(task);             \
  }

void any_forward(const ActivationRows& task) {
  if (task.dtype == c10::ScalarType::Double) {
    FMOE_ANY_ACTIVATION(forward, double, task)
  } else {
    FMOE_ANY_ACTIVATION(forward, float, task)
  }
}

void any_backward(const ActivationRowsBackward& task) {
  if (task.dtype == c10::ScalarType::Double) {
    FMOE_ANY_ACTIVATION(backward, double, task)
  } else {
    FMOE_ANY_ACTIVATION(backward, float, task)
  }
}

void any_scale(const ScaleRows& task) {
  task.dtype == c10::ScalarType::Double ? scale<double>(task) : scale<float>(task);
}

}  // namespace

extern const ActivationKernels kActivationKernels;
const ActivationKernels kActivationKernels{any_forward, any_backward, any_scale};

}  // namespace CPU_CAPABILITY

}  // namespace fmoe::cpu
