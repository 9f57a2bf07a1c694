// What is asked once for each device: the runtime's answers take longer than a launch.
#pragma once

#include <cuda_runtime_api.h>

#include <array>
#include <mutex>

namespace fmoe::cuda {

template <typename T>
class PerDevice {
 public:
  // What `ask` gave when it was first called with the current device.
  template <typename Ask>
  T get(const Ask& ask) {
    int device = 0;
    if (cudaGetDevice(&device) != cudaSuccess || device >= kMaximumDevices) {
      return ask();
    }
    std::call_once(once_[device], [&] { answer_[device] = ask(); });
    return answer_[device];
  }

 private:
  static constexpr int kMaximumDevices = 64;
  std::array<std::once_flag, kMaximumDevices> once_;
  std::array<T, kMaximumDevices> answer_{};
};

}  // namespace fmoe::cuda
