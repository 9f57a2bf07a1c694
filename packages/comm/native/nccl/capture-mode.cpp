#include "capture-mode.h"

#include <dlfcn.h>
#include <link.h>

#include <cstring>

namespace fmoe::comm {

namespace {

using Exchange = int (*)(int* mode);

// From the CUDA runtime that libtorch has loaded, whatever its version; null where there is none.
Exchange find_exchange() {
  void* library = nullptr;
  dl_iterate_phdr(
      [](dl_phdr_info* info, size_t, void* result) {
        if (std::strstr(info->dlpi_name, "libcudart") == nullptr) return 0;
        *static_cast<void**>(result) = dlopen(info->dlpi_name, RTLD_NOW | RTLD_NOLOAD);
        return 1;
      },
      &library);
  return library ? reinterpret_cast<Exchange>(dlsym(library, "cudaThreadExchangeStreamCaptureMode")) : nullptr;
}

void exchange(int* mode) {
  static const Exchange function = find_exchange();
  if (function) function(mode);
}

}  // namespace

RelaxedCapture::RelaxedCapture() { exchange(&mode_); }
RelaxedCapture::~RelaxedCapture() { exchange(&mode_); }

}  // namespace fmoe::comm
