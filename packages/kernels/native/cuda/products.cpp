#include "cuda/products.h"
#include "cuda/per-device.h"

#include <ATen/Context.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/ops/_grouped_mm.h>
#include <ATen/ops/empty.h>
#include <c10/cuda/CUDAFunctions.h>

#include <limits>

namespace fmoe::cuda {

namespace {

// Compute capability 9.0.
bool is_hopper() {
  static PerDevice<bool> hopper;
  return hopper.get([] {
    const int device = c10::cuda::current_device();
    int major = 0, minor = 0;
    C10_CUDA_CHECK(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device));
    C10_CUDA_CHECK(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device));
    return major == 9 && minor == 0;
  });
}

bool is_aligned(const Tensor& tensor) {
  return tensor.size(-1) * tensor.element_size() % 16 == 0 &&
         reinterpret_cast<uintptr_t>(tensor.const_data_ptr()) % 16 == 0;
}

// Below this many multiply-adds a product takes less time than libtorch's preparation of it: three launches instead of one,
// and tens of microseconds on the host.
constexpr double kLeastForLibtorch = 4e9;

// aten::_grouped_mm reads its offsets on the device for bfloat16 on compute capability 9.0 alone; elsewhere it waits for
// the device. It wants 16-byte rows and counts them in int32. `work` is the number of multiply-adds.
bool use_libtorch(const Tensor& a, const Tensor& b, double work) {
  return a.scalar_type() == at::kBFloat16 && work >= kLeastForLibtorch && is_hopper() && is_aligned(a) &&
         is_aligned(b) && a.size(0) <= std::numeric_limits<int32_t>::max();
}

double work_of(const Tensor& rows, const Tensor& weight) {
  return static_cast<double>(rows.size(0)) * weight.size(1) * weight.size(2);
}

bool use_tf32(const Tensor& tensor) {
  return tensor.scalar_type() == at::kFloat && at::globalContext().allowTF32CuBLAS();
}

void finish(Tensor& rows, const std::optional<Tensor>& bias, const GroupOffsets& groups) {
  finish_rows(
      {dtype_of(rows), rows.mutable_data_ptr(), data(bias), groups.begin(), groups.experts(), rows.size(0),
       rows.size(1)},
      current_stream());
}

}  // namespace

const Tensor& GroupOffsets::ends() {
  if (!ends_.defined()) {
    ends_ = at::empty({experts()}, offsets_.options().dtype(at::kInt));
    group_ends(ends_.mutable_data_ptr<int32_t>(), begin(), experts(), rows_, current_stream());
  }
  return ends_;
}

bool adds_bias_for_free(const Tensor& x, const Tensor& weight) {
  return !use_libtorch(x, weight, work_of(x, weight));
}

Tensor product_forward(
    const Tensor& x, const Tensor& weight, const std::optional<Tensor>& bias, GroupOffsets& groups, Padding padding) {
  const bool has_bias = data(bias) != nullptr;
  if (use_libtorch(x, weight, work_of(x, weight)) && weight.size(1) % 8 == 0) {
    Tensor result = at::_grouped_mm(x, weight.transpose(1, 2), groups.ends());
    if (has_bias || padding == Padding::Zeros) {
      finish(result, bias, groups);
    }
    return result;
  }
  Tensor result = at::empty({x.size(0), weight.size(1)}, x.options());
  grouped_product(
      {Product::Forward, dtype_of(x), use_tf32(x), result.mutable_data_ptr(), x.const_data_ptr(),
       weight.const_data_ptr(), data(bias), groups.begin(), groups.experts(), x.size(0), 0, weight.size(1),
       weight.size(2)},
      current_stream());
  return result;
}

Tensor product_input_grad(const Tensor& grad, const Tensor& weight, GroupOffsets& groups, Padding padding) {
  if (use_libtorch(grad, weight, work_of(grad, weight))) {
    Tensor result = at::_grouped_mm(grad, weight, groups.ends());
    if (padding == Padding::Zeros) {
      finish(result, std::nullopt, groups);
    }
    return result;
  }
  Tensor result = at::empty({grad.size(0), weight.size(2)}, grad.options());
  grouped_product(
      {Product::InputGrad, dtype_of(grad), use_tf32(grad), result.mutable_data_ptr(), grad.const_data_ptr(),
       weight.const_data_ptr(), nullptr, groups.begin(), groups.experts(), grad.size(0), 0, weight.size(2),
       weight.size(1)},
      current_stream());
  return result;
}

Tensor product_weight_grad(const Tensor& grad, const Tensor& x, GroupOffsets& groups) {
  if (use_libtorch(grad, x, static_cast<double>(grad.numel()) * x.size(1))) {
    return at::_grouped_mm(grad.t(), x, groups.ends());
  }
  Tensor result = at::empty({groups.experts(), grad.size(1), x.size(1)}, x.options());
  grouped_product(
      {Product::WeightGrad, dtype_of(x), use_tf32(x), result.mutable_data_ptr(), grad.const_data_ptr(),
       x.const_data_ptr(), nullptr, groups.begin(), groups.experts(), x.size(0), grad.size(1), x.size(1), 0},
      current_stream());
  return result;
}

Tensor column_sums(
    const Tensor& rows,
    const GroupOffsets& groups,
    const std::optional<Tensor>& factor,
    const std::optional<Tensor>& row_slot) {
  Tensor result = at::empty({groups.experts(), rows.size(1)}, rows.options());
  grouped_column_sum(
      {dtype_of(rows), result.mutable_data_ptr(), rows.const_data_ptr(), groups.begin(), data(factor),
       row_slot.has_value() ? indices(*row_slot) : nullptr, groups.experts(), rows.size(0),
       factor.has_value() ? factor->numel() : 0, rows.size(1)},
      current_stream());
  return result;
}

}  // namespace fmoe::cuda
