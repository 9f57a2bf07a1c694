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

  library.def("router_logits(Tensor x, Tensor weight, Tensor? bias) -> Tensor");
  library.def(
      "topk_gate(Tensor logits, Tensor? selection_bias, int k, str score_function, bool normalize)"
      " -> (Tensor top_idx, Tensor top_score)");
  library.def(
      "topk_gate_backward(Tensor grad, Tensor logits, Tensor top_idx, Tensor top_score, str score_function,"
      " bool normalize) -> Tensor");
  library.def("expert_count(Tensor top_idx, int num_experts) -> Tensor");
  library.def("assign_pos(Tensor cum_count, Tensor top_idx) -> Tensor");
  library.def("limit_by_capacity(Tensor expert_count, Tensor capacity) -> Tensor");
  library.def("prune_gate_by_capacity(Tensor top_idx, Tensor budget) -> Tensor");

  // moe_mlp is the inference form and saves nothing; with gradients it goes through moe_mlp_forward.
  library.def(
      "moe_mlp(Tensor x, Tensor w1, Tensor? b1, Tensor w2, Tensor? b2, Tensor score, Tensor row_slot,"
      " Tensor slot_row, Tensor offsets, str activation) -> Tensor");
  library.def(
      "moe_mlp_forward(Tensor x, Tensor w1, Tensor? b1, Tensor w2, Tensor? b2, Tensor score, Tensor row_slot,"
      " Tensor slot_row, Tensor offsets, str activation) -> (Tensor y, Tensor pre_activation)");
  // output_mask: which gradients are wanted, in the order of the results; an unwanted one is a tensor of shape [0].
  library.def(
      "moe_mlp_backward(Tensor grad, Tensor x, Tensor pre_activation, Tensor w1, Tensor w2, Tensor? b2,"
      " Tensor score, Tensor row_slot, Tensor slot_row, Tensor offsets, str activation, bool[6] output_mask)"
      " -> (Tensor x_grad, Tensor w1_grad, Tensor b1_grad, Tensor w2_grad, Tensor b2_grad, Tensor score_grad)");
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

Tensor router_logits(const Tensor& x, const Tensor& weight, const std::optional<Tensor>& bias) {
  FMOE_CALL(router_logits, x, weight, bias);
}

std::tuple<Tensor, Tensor> topk_gate(
    const Tensor& logits,
    const std::optional<Tensor>& selection_bias,
    int64_t k,
    std::string_view score_function,
    bool normalize) {
  FMOE_CALL(topk_gate, logits, selection_bias, k, score_function, normalize);
}

Tensor topk_gate_backward(
    const Tensor& grad,
    const Tensor& logits,
    const Tensor& top_idx,
    const Tensor& top_score,
    std::string_view score_function,
    bool normalize) {
  FMOE_CALL(topk_gate_backward, grad, logits, top_idx, top_score, score_function, normalize);
}

Tensor moe_mlp(const MoeMlpArguments& of) {
  static const auto handle = find("fmoe::moe_mlp", &moe_mlp_unpacked<moe_mlp>);
  return handle.call(
      of.x, of.w1, of.b1, of.w2, of.b2, of.score, of.row_slot, of.slot_row, of.offsets, of.activation);
}

std::tuple<Tensor, Tensor> moe_mlp_forward(const MoeMlpArguments& of) {
  static const auto handle = find("fmoe::moe_mlp_forward", &moe_mlp_unpacked<moe_mlp_forward>);
  return handle.call(
      of.x, of.w1, of.b1, of.w2, of.b2, of.score, of.row_slot, of.slot_row, of.offsets, of.activation);
}

MoeMlpGrads moe_mlp_backward(const MoeMlpBackwardArguments& given) {
  static const auto handle = find("fmoe::moe_mlp_backward", &moe_mlp_backward_unpacked<moe_mlp_backward>);
  const MoeMlpArguments& of = given.forward;
  return handle.call(
      given.grad, of.x, given.pre_activation, of.w1, of.w2, of.b2, of.score, of.row_slot, of.slot_row, of.offsets,
      of.activation, given.wanted);
}

#undef FMOE_CALL

}  // namespace fmoe::ops
