// The sticky error flags, one set a device.
#include "cuda/device.cuh"
#include "cuda/per-device.h"

namespace fmoe::cuda {

namespace {

// A variable of the module: there before any allocation, at the same address for the life of the process, so that
// captured graphs may hold it.
__device__ int32_t device_flags[kBadValues];

__global__ void take(int32_t* out) {
  out[threadIdx.x] = device_flags[threadIdx.x];
  device_flags[threadIdx.x] = 0;
}

}  // namespace

int32_t* error_flags() {
  static PerDevice<int32_t*> flags;
  return flags.get([] {
    void* address = nullptr;
    check(cudaGetSymbolAddress(&address, device_flags));
    return static_cast<int32_t*>(address);
  });
}

void take_error_flags(int32_t* out, cudaStream_t stream) {
  take<<<1, kBadValues, 0, stream>>>(out);
  check(cudaGetLastError());
}

}  // namespace fmoe::cuda
