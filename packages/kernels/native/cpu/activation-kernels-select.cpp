#include "cpu/activation-kernels.h"
#include "cpu/instruction-set.h"

namespace fmoe::cpu {

namespace DEFAULT {
extern const ActivationKernels kActivationKernels;
}
#ifdef FMOE_HAVE_AVX2
namespace AVX2 {
extern const ActivationKernels kActivationKernels;
}
#endif
#ifdef FMOE_HAVE_AVX512
namespace AVX512 {
extern const ActivationKernels kActivationKernels;
}
#endif

const ActivationKernels& activation_kernels() {
  const ActivationKernels *avx2 = nullptr, *avx512 = nullptr;
#ifdef FMOE_HAVE_AVX2
  avx2 = &AVX2::kActivationKernels;
#endif
#ifdef FMOE_HAVE_AVX512
  avx512 = &AVX512::kActivationKernels;
#endif
  static const ActivationKernels& chosen = choose(DEFAULT::kActivationKernels, avx2, avx512);
  return chosen;
}

}  // namespace fmoe::cpu
