// Derivatives of dispatch and combine. The backward operators are differentiable in turn:
//
//   dispatch          y[r]    = x[token(r)]                  is linear; its transpose is dispatch_backward, and back.
//   combine           y[t]    = Σ_j s[t,j] · rows[r(t,j)]
//   combine_backward  drows[r] = s · g[t],  ds[t,j] = ⟨g[t], rows[r]⟩
//     and with (a, b) flowing into (drows, ds):  dg = combine(a, s) + combine(rows, b),
//     and (d rows, d s) = combine_backward(g, a, b).
#include "ops.h"

#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

namespace fmoe {

namespace {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::variable_list;

// The engine passes an undefined tensor for an output that nothing used.
bool any_defined(const variable_list& grads) {
  for (const auto& grad : grads) {
    if (grad.defined()) {
      return true;
    }
  }
  return false;
}

struct Dispatch : Function<Dispatch> {
  static Tensor forward(
      AutogradContext* context, const Tensor& x, const Tensor& row_slot, const Tensor& slot_row) {
    at::AutoDispatchBelowADInplaceOrView guard;
    context->set_materialize_grads(false);
    context->save_for_backward({row_slot, slot_row});
    return ops::dispatch(x, row_slot, slot_row);
  }

  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    if (!any_defined(grads)) {
      return {Tensor(), Tensor(), Tensor()};
    }
    const auto saved = context->get_saved_variables();
    return {ops::dispatch_backward(grads[0], saved[0], saved[1]), Tensor(), Tensor()};
  }
};

struct DispatchBackward : Function<DispatchBackward> {
  static Tensor forward(
      AutogradContext* context, const Tensor& grad, const Tensor& row_slot, const Tensor& slot_row) {
    at::AutoDispatchBelowADInplaceOrView guard;
    context->set_materialize_grads(false);
    context->save_for_backward({row_slot, slot_row});
    return ops::dispatch_backward(grad, row_slot, slot_row);
  }

  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    if (!any_defined(grads)) {
      return {Tensor(), Tensor(), Tensor()};
    }
    const auto saved = context->get_saved_variables();
    return {ops::dispatch(grads[0], saved[0], saved[1]), Tensor(), Tensor()};
  }
};

struct Combine : Function<Combine> {
  static Tensor forward(
      AutogradContext* context, const Tensor& rows, const Tensor& score, const Tensor& slot_row) {
    at::AutoDispatchBelowADInplaceOrView guard;
    context->set_materialize_grads(false);
    context->save_for_backward({rows, score, slot_row});
    return ops::combine(rows, score, slot_row);
  }

  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    if (!any_defined(grads)) {
      return {Tensor(), Tensor(), Tensor()};
    }
    const auto saved = context->get_saved_variables();
    auto [rows_grad, score_grad] = ops::combine_backward(grads[0], saved[0], saved[1], saved[2]);
    return {rows_grad, score_grad, Tensor()};
  }
};

struct CombineBackward : Function<CombineBackward> {
  static variable_list forward(
      AutogradContext* context,
      const Tensor& grad,
      const Tensor& rows,
      const Tensor& score,
      const Tensor& slot_row) {
    at::AutoDispatchBelowADInplaceOrView guard;
    context->save_for_backward({grad, rows, score, slot_row});
    auto [rows_grad, score_grad] = ops::combine_backward(grad, rows, score, slot_row);
    return {rows_grad, score_grad};
  }

  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    const auto saved = context->get_saved_variables();
    const auto &grad = saved[0], &rows = saved[1], &score = saved[2], &slot_row = saved[3];
    Tensor grad_grad;
    if (context->needs_input_grad(0)) {
      grad_grad = ops::combine(grads[0], score, slot_row).add(ops::combine(rows, grads[1], slot_row));
    }
    auto [rows_grad, score_grad] = ops::combine_backward(grad, grads[0], grads[1], slot_row);
    return {grad_grad, rows_grad, score_grad, Tensor()};
  }
};

Tensor dispatch(const Tensor& x, const Tensor& row_slot, const Tensor& slot_row) {
  return Dispatch::apply(x, row_slot, slot_row);
}

Tensor dispatch_backward(const Tensor& grad, const Tensor& row_slot, const Tensor& slot_row) {
  return DispatchBackward::apply(grad, row_slot, slot_row);
}

Tensor combine(const Tensor& rows, const Tensor& score, const Tensor& slot_row) {
  return Combine::apply(rows, score, slot_row);
}

std::tuple<Tensor, Tensor> combine_backward(
    const Tensor& grad, const Tensor& rows, const Tensor& score, const Tensor& slot_row) {
  auto grads = CombineBackward::apply(grad, rows, score, slot_row);
  return {grads[0], grads[1]};
}

}  // namespace

TORCH_LIBRARY_IMPL(fmoe, Autograd, library) {
  // All results are indices.
  library.impl("route_plan", torch::CppFunction::makeFallthrough());
  library.impl("dispatch", TORCH_FN(dispatch));
  library.impl("dispatch_backward", TORCH_FN(dispatch_backward));
  library.impl("combine", TORCH_FN(combine));
  library.impl("combine_backward", TORCH_FN(combine_backward));
}

}  // namespace fmoe
