// Shapes in error messages: "[4, 3]".
#pragma once

#include <ATen/core/Tensor.h>

#include <string>

namespace fmoe {

// A string and not the stream operator of libtorch: that would write, by libtorch's C++ runtime, to a stream made by ours. The
// two are one library nearly everywhere; where a toolchain links its own statically, they are not, and the process dies.
inline std::string shape_text(const at::Tensor& tensor) {
  std::string text = "[";
  for (const c10::SymInt& size : tensor.sym_sizes()) {
    text += text.size() > 1 ? ", " : "";
    const auto known = size.maybe_as_int();
    text += known.has_value() ? std::to_string(*known) : size.toSymNode()->str();
  }
  return text + "]";
}

}  // namespace fmoe
