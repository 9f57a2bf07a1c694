// Schemas. Each `*_backward` / `*_grad` operator is public to the dispatcher, so that the autograd formulas are
// written once for every device and derivatives of any order go through the same kernels.
#include "ops.h"

#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/library.h>

TORCH_LIBRARY(fmoe, library) {
  library.def(
      "route_plan(Tensor top_idx, int num_experts)"
      " -> (Tensor counts, Tensor offsets, Tensor row_slot, Tensor slot_row)");
  library.def("dispatch(Tensor x, Tensor row_slot, Tensor slot_row) -> Tensor");
  library.def("dispatch_backward(Tensor grad, Tensor row_slot, Tensor slot_row) -> Tensor");
  library.def("grouped_linear(Tensor x, Tensor weight, Tensor? bias, Tensor offsets) -> Tensor");
  library.def("grouped_linear_input_grad(Tensor grad, Tensor weight, Tensor offsets) -> Tensor");
  library.def(
      "grouped_linear_weight_grad(Tensor grad, Tensor x, Tensor offsets, bool with_bias)"
      " -> (Tensor weight_grad, Tensor bias_grad)");
  library.def("combine(Tensor rows, Tensor score, Tensor slot_row) -> Tensor");
  library.def(
      "combine_backward(Tensor grad, Tensor rows, Tensor score, Tensor slot_row)"
      " -> (Tensor rows_grad, Tensor score_grad)");
}

namespace fmoe::ops {

namespace {

template <typename Function>
auto find(const char* name, Function*) {
  return c10::Dispatcher::singleton().findSchemaOrThrow(name, "").typed<Function>();
}

}  // namespace

// Each lookup runs once. The dispatcher's handle stays valid while the library is loaded.
#define FMOE_CALL(name, ...)                                                 \
  static const auto handle = find("fmoe::" #name, static_cast<decltype(name)*>(nullptr)); \
  return handle.call(__VA_ARGS__)

std::tuple<Tensor, Tensor, Tensor, Tensor> route_plan(const Tensor& top_idx, int64_t num_experts) {
  FMOE_CALL(route_plan, top_idx, num_experts);
}

Tensor dispatch(const Tensor& x, const Tensor& row_slot, const Tensor& slot_row) {
  FMOE_CALL(dispatch, x, row_slot, slot_row);
}

Tensor dispatch_backward(const Tensor& grad, const Tensor& row_slot, const Tensor& slot_row) {
  FMOE_CALL(dispatch_backward, grad, row_slot, slot_row);
}

Tensor grouped_linear(
    const Tensor& x, const Tensor& weight, const std::optional<Tensor>& bias, const Tensor& offsets) {
  FMOE_CALL(grouped_linear, x, weight, bias, offsets);
}

Tensor grouped_linear_input_grad(const Tensor& grad, const Tensor& weight, const Tensor& offsets) {
  FMOE_CALL(grouped_linear_input_grad, grad, weight, offsets);
}

std::tuple<Tensor, Tensor> grouped_linear_weight_grad(
    const Tensor& grad, const Tensor& x, const Tensor& offsets, bool with_bias) {
  FMOE_CALL(grouped_linear_weight_grad, grad, x, offsets, with_bias);
}

Tensor combine(const Tensor& rows, const Tensor& score, const Tensor& slot_row) {
  FMOE_CALL(combine, rows, score, slot_row);
}

std::tuple<Tensor, Tensor> combine_backward(
    const Tensor& grad, const Tensor& rows, const Tensor& score, const Tensor& slot_row) {
  FMOE_CALL(combine_backward, grad, rows, score, slot_row);
}

#undef FMOE_CALL

}  // namespace fmoe::ops
