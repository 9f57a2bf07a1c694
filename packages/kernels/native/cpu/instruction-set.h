// Which build of a vector loop to run: the instruction set that ATen itself runs with, so that ATEN_CPU_CAPABILITY
// rules both.
#pragma once

#include <ATen/Version.h>

#include <string>

namespace fmoe::cpu {

// Tables of one family for the sets it was compiled for; those that were not are null.
template <typename Table>
const Table& choose(const Table& fallback, const Table* avx2, const Table* avx512) {
  const std::string capability = at::get_cpu_capability();
  if (avx512 != nullptr && capability == "AVX512") {
    return *avx512;
  }
  if (avx2 != nullptr && (capability == "AVX2" || capability == "AVX512")) {
    return *avx2;
  }
  return fallback;
}

}  // namespace fmoe::cpu
