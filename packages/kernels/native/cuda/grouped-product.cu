// Which grouped product runs for which element type.
#include "cuda/grouped-mma.cuh"
#include "cuda/grouped-simt.cuh"
#include "cuda/per-device.h"

namespace fmoe::cuda {

namespace {

unsigned grid_of(int64_t tiles) {
  if (tiles > 0x7fffffff) {
    throw std::runtime_error("a grouped product of more than 2^31 tiles is not supported on CUDA");
  }
  return static_cast<unsigned>(tiles);
}

// Calls launch(product) with the product as a compile-time constant.
template <typename Launch>
void with_product(Product product, const Launch& launch) {
  switch (product) {
    case Product::Forward:
      return launch(std::integral_constant<Product, Product::Forward>{});
    case Product::InputGrad:
      return launch(std::integral_constant<Product, Product::InputGrad>{});
    case Product::WeightGrad:
      return launch(std::integral_constant<Product, Product::WeightGrad>{});
  }
}

template <typename T, typename Shape>
void simt(const GroupedProduct& task, cudaStream_t stream) {
  const unsigned grid = grid_of(tile_count(task, Shape::kTile, Shape::kTile));
  with_product(task.product, [&](auto product) {
    grouped_simt_kernel<T, Shape, product()><<<grid, Shape::kThreads, 0, stream>>>(task, error_flags());
  });
}

template <typename T>
void mma(const GroupedProduct& task, cudaStream_t stream) {
  const unsigned grid = grid_of(tile_count(task, kMmaTile, kMmaTile));
  with_product(task.product, [&](auto product) {
    constexpr Product kProduct = product();
    constexpr int kBytes = mma_shared_bytes<T, kProduct>();
    const auto kernel = grouped_mma_kernel<T, kProduct>;
    static PerDevice<bool> has_memory;
    has_memory.get([&] {
      check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes));
      return true;
    });
    const bool wide_a = is_wide<T>(kProduct == Product::WeightGrad ? task.m : task.k, task.a);
    const bool wide_b = is_wide<T>(kProduct == Product::Forward ? task.k : task.n, task.b);
    kernel<<<grid, kMmaThreads<T>, kBytes, stream>>>(task, wide_a, wide_b, error_flags());
  });
}

}  // namespace

void grouped_product(const GroupedProduct& task, cudaStream_t stream) {
  if (tile_count(task, 1, 1) == 0) {
    return;
  }
  switch (task.dtype) {
    case Dtype::Float64:
      simt<double, SimtShape<double, 64, 4>>(task, stream);
      break;
    case Dtype::Float32:
      if (task.tf32) {
        mma<float>(task, stream);
      } else {
        simt<float, SimtShape<float, 128, 8>>(task, stream);
      }
      break;
    case Dtype::Float16:
      mma<__half>(task, stream);
      break;
    case Dtype::BFloat16:
      mma<__nv_bfloat16>(task, stream);
      break;
  }
  check(cudaGetLastError());
}

}  // namespace fmoe::cuda
