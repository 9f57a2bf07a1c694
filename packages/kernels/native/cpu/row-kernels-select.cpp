// Picks the instruction set that ATen itself runs with, so that ATEN_CPU_CAPABILITY rules both.
#include "cpu/row-kernels.h"

#include <ATen/Version.h>

#include <string>

namespace fmoe::cpu {

namespace DEFAULT {
extern const RowKernels kRowKernels;
}
#ifdef FMOE_HAVE_AVX2
namespace AVX2 {
extern const RowKernels kRowKernels;
}
#endif
#ifdef FMOE_HAVE_AVX512
namespace AVX512 {
extern const RowKernels kRowKernels;
}
#endif

const RowKernels& row_kernels() {
  static const RowKernels& chosen = []() -> const RowKernels& {
    [[maybe_unused]] const std::string capability = at::get_cpu_capability();
#ifdef FMOE_HAVE_AVX512
    if (capability == "AVX512") {
      return AVX512::kRowKernels;
    }
#endif
#ifdef FMOE_HAVE_AVX2
    if (capability == "AVX2" || capability == "AVX512") {
      return AVX2::kRowKernels;
    }
#endif
    return DEFAULT::kRowKernels;
  }();
  return chosen;
}

}  // namespace fmoe::cpu
