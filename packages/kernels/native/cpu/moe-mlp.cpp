// The fused expert MLP. Each thread takes an equal share of the rows and carries it, some hundred rows at a time, from
// the gathered tokens through both products while it is in the cache. Expert outputs live until the combine and are not
// saved: with G = grad · W2ᵉ the gradient of a score is ⟨G, A⟩ + ⟨grad, b2ᵉ⟩, where A is the activation.
//
// All arithmetic is in float32 (float64 for float64); half-precision operands are widened, results rounded once.
#include "activation.h"
#include "checks.h"
#include "cpu/activation-kernels.h"
#include "cpu/grouped-linear.h"
#include "cpu/groups.h"
#include "cpu/parallel.h"
#include "cpu/row-kernels.h"
#include "ops.h"

#include <ATen/Dispatch.h>
#include <ATen/OpMathType.h>
#include <ATen/ops/addmm.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/zeros.h>
#include <torch/library.h>

#include <cstring>

namespace fmoe::cpu {

namespace {

// Rows that go through the whole chain at once.
constexpr int64_t kBlockRows = 512;

// The route, checked: rows of an expert have a slot, padding rows past the experts have none.
struct Route {
  Tensor row_slot;  // [R]
  Tensor slot_row;  // [T, K]
  Groups groups;

  Route(const char* op, const MoeMlpArguments& of)
      : row_slot(as_indices(of.row_slot)),
        slot_row(as_indices(of.slot_row)),
        groups(op, of.offsets, of.row_slot.size(0)) {
    check_inverse(op, slot_of(), row_slot.numel(), slot_row.const_data_ptr<int64_t>(), slot_row.numel());
    for (int64_t row = 0; row < row_slot.numel(); ++row) {
      TORCH_CHECK_INDEX(
          (slot_of()[row] >= 0) == (row < groups.rows()), op, ": row_slot holds ", slot_of()[row], " at row ", row,
          ", but offsets end at row ", groups.rows(), "; rows before it need a slot, later ones are padding (-1)");
    }
  }
  const int64_t* slot_of() const { return row_slot.const_data_ptr<int64_t>(); }
  int64_t row_count() const { return row_slot.numel(); }
  int64_t choices() const { return slot_row.size(1); }
};

// The tokens of rows [begin, begin + count), in the accumulation type.
Tensor gather(const Route& route, const Tensor& tokens, int64_t begin, int64_t count) {
  Tensor rows = at::empty({count, tokens.size(1)}, tokens.options());
  const int64_t row_bytes = tokens.size(1) * tokens.element_size();
  const auto* source = static_cast<const char*>(tokens.const_data_ptr());
  auto* target = static_cast<char*>(rows.mutable_data_ptr());
  for (int64_t row = 0; row < count; ++row) {
    const int64_t token = route.slot_of()[begin + row] / route.choices();
    std::memcpy(target + row * row_bytes, source + token * row_bytes, row_bytes);
  }
  return rows.to(at::toOpMathType(tokens.scalar_type()));
}

// One expert's slice of a parameter, in the accumulation type.
Tensor expert_slice(const Tensor& parameter, int64_t expert) {
  return parameter.select(0, expert).to(at::toOpMathType(parameter.scalar_type()));
}

std::optional<Tensor> expert_slice(const std::optional<Tensor>& parameter, int64_t expert) {
  return parameter && parameter->defined() ? std::make_optional(expert_slice(*parameter, expert)) : std::nullopt;
}

// out = rows · weightᵀ (+ bias)
void linear_out(Tensor out, const Tensor& rows, const Tensor& weight, const std::optional<Tensor>& bias) {
  if (bias) {
    at::addmm_out(out, *bias, rows, weight.t());
  } else {
    at::mm_out(out, rows, weight.t());
  }
}

// Calls body(begin, count) for the blocks of an expert's part of a share.
template <typename Body>
void for_blocks(int64_t begin, int64_t count, const Body& body) {
  for (int64_t block = begin; block < begin + count; block += kBlockRows) {
    body(block, std::min(kBlockRows, begin + count - block));
  }
}

// y[t] = Σ_j factor[t, j] · rows[slot_row[t, j]]; without factors the plain sum.
Tensor sum_of_choices(const Route& route, const Tensor& rows, const Tensor& factor, at::ScalarType dtype) {
  const int64_t tokens = route.slot_row.size(0), features = rows.size(1);
  Tensor result = at::empty({tokens, features}, rows.options());
  const WeightedSum task{rows.scalar_type(), result.mutable_data_ptr(), rows.const_data_ptr(),
                         factor.defined() ? factor.const_data_ptr() : nullptr,
                         route.slot_row.const_data_ptr<int64_t>(), route.choices(), features};
  at::parallel_for(0, tokens, grain(route.choices() * features), [&](int64_t first, int64_t last) {
    row_kernels().weighted_sum(task, first, last);
  });
  return result.to(dtype);
}

// y, and the pre-activations where `keep` is set.
std::tuple<Tensor, Tensor> run_forward(const char* op, bool keep, const MoeMlpArguments& of) {
  check_moe_mlp(op, of);
  const Activation activation = parse_activation(op, of.activation);
  const Route route(op, of);
  const Tensor tokens = of.x.contiguous();
  const auto dtype = tokens.scalar_type(), wide = at::toOpMathType(dtype);
  const int64_t width = of.w1.size(1), hidden = of.w2.size(2), features = tokens.size(1);
  const int64_t rows = route.row_count(), used = route.groups.rows();

  Tensor pre = keep ? at::empty({rows, width}, tokens.options()) : Tensor();
  if (keep && used < rows) {
    pre.narrow(0, used, rows - used).zero_();
  }
  Tensor outputs = at::empty({rows, features}, tokens.options().dtype(wide));
  for_row_shares(route.groups, features * (width + hidden), [&](int64_t expert, int64_t begin, int64_t count) {
    const Tensor up = expert_slice(of.w1, expert), down = expert_slice(of.w2, expert);
    const auto up_bias = expert_slice(of.b1, expert), down_bias = expert_slice(of.b2, expert);
    for_blocks(begin, count, [&](int64_t first, int64_t size) {
      const bool in_place = keep && dtype == wide;
      Tensor inner = in_place ? pre.narrow(0, first, size) : at::empty({size, width}, outputs.options());
      linear_out(inner, gather(route, tokens, first, size), up, up_bias);
      if (keep && !in_place) {
        pre.narrow(0, first, size).copy_(inner);
      }
      Tensor active = at::empty({size, hidden}, outputs.options());
      activation_kernels().forward(
          {wide, activation, active.mutable_data_ptr(), inner.const_data_ptr(), size, hidden});
      linear_out(outputs.narrow(0, first, size), active, down, down_bias);
    });
  });
  return {sum_of_choices(route, outputs, of.score.to(wide).contiguous(), dtype), pre};
}

Tensor moe_mlp(const MoeMlpArguments& of) {
  return std::get<0>(run_forward("fmoe::moe_mlp", false, of));
}

std::tuple<Tensor, Tensor> moe_mlp_forward(const MoeMlpArguments& of) {
  return run_forward("fmoe::moe_mlp_forward", true, of);
}

MoeMlpGrads moe_mlp_backward(const MoeMlpBackwardArguments& given) {
  const char* op = "fmoe::moe_mlp_backward";
  check_moe_mlp_backward(given);
  const MoeMlpArguments& of = given.forward;
  const auto& wanted = given.wanted;
  const bool want_x = wanted[0], want_w1 = wanted[1], want_b1 = wanted[2], want_w2 = wanted[3], want_b2 = wanted[4],
             want_score = wanted[5];
  const Activation activation = parse_activation(op, of.activation);
  const Route route(op, of);
  const Tensor tokens = of.x.contiguous(), incoming = given.grad.contiguous(),
               pre = given.pre_activation.contiguous();
  const auto dtype = tokens.scalar_type(), wide = at::toOpMathType(dtype);
  const auto options = tokens.options().dtype(wide);
  const int64_t width = of.w1.size(1), hidden = of.w2.size(2), features = tokens.size(1);
  const int64_t rows = route.row_count();
  const Tensor factor = of.score.to(wide).contiguous();
  const auto make = [&](bool kept, int64_t columns) {
    return at::empty({kept ? rows : 0, columns}, options);
  };

  // What the weights' gradients need of every row.
  const bool first_layer = want_w1 || want_b1, second_layer = want_w2 || want_b2;
  Tensor inputs = make(want_w1, features), pre_grad = make(first_layer, width);
  Tensor active = make(want_w2, hidden), output_grad = make(second_layer, features);
  Tensor input_grad = make(want_x, features);
  Tensor score_grad = at::zeros({want_score ? factor.numel() : 0}, options);
  const auto slice = [](Tensor& rows, bool kept, int64_t first, int64_t size) {
    return kept ? rows.narrow(0, first, size) : at::empty({size, rows.size(1)}, rows.options());
  };

  for_row_shares(route.groups, features * (width + hidden), [&](int64_t expert, int64_t begin, int64_t count) {
    const Tensor up = expert_slice(of.w1, expert), down = expert_slice(of.w2, expert);
    const auto down_bias = expert_slice(of.b2, expert);
    const Tensor bias_row = down_bias ? down_bias->contiguous() : Tensor();
    for_blocks(begin, count, [&](int64_t first, int64_t size) {
      Tensor row_factor = at::empty({size}, options), product = at::empty({size}, options);
      AT_DISPATCH_FLOATING_TYPES(wide, "moe_mlp_backward", [&] {
        for (int64_t row = 0; row < size; ++row) {
          row_factor.mutable_data_ptr<scalar_t>()[row] =
              factor.const_data_ptr<scalar_t>()[route.slot_of()[first + row]];
        }
      });
      const Tensor row_grad = gather(route, incoming, first, size);
      const Tensor active_grad = at::mm(row_grad, down);
      Tensor block_active = slice(active, want_w2, first, size);
      Tensor block_pre_grad = slice(pre_grad, first_layer, first, size);
      const Tensor block_pre = pre.narrow(0, first, size).to(wide);
      activation_kernels().backward(
          {wide, activation, block_active.mutable_data_ptr(), product.mutable_data_ptr(),
           block_pre_grad.mutable_data_ptr(), block_pre.const_data_ptr(), active_grad.const_data_ptr(),
           row_factor.const_data_ptr(), size, hidden});
      // row_grad was needed as it came in until here; what the second layer's gradients take is scaled.
      activation_kernels().scale(
          {wide, row_grad.mutable_data_ptr(), product.mutable_data_ptr(), row_factor.const_data_ptr(),
           bias_row.defined() ? bias_row.const_data_ptr() : nullptr, size, features});
      if (second_layer) {
        output_grad.narrow(0, first, size).copy_(row_grad);
      }
      if (want_score) {
        AT_DISPATCH_FLOATING_TYPES(wide, "moe_mlp_backward", [&] {
          for (int64_t row = 0; row < size; ++row) {
            score_grad.mutable_data_ptr<scalar_t>()[route.slot_of()[first + row]] =
                product.const_data_ptr<scalar_t>()[row];
          }
        });
      }
      if (want_x) {
        Tensor target = input_grad.narrow(0, first, size);
        at::mm_out(target, block_pre_grad, up);
      }
      if (want_w1) {
        inputs.narrow(0, first, size).copy_(gather(route, tokens, first, size));
      }
    });
  });

  // Results may not share memory, so each unwanted one is a tensor of its own.
  const auto none = [&] { return at::empty({0}, tokens.options()); };
  Tensor w1_grad = none(), b1_grad = none(), w2_grad = none(), b2_grad = none();
  const auto layer_grads = [&](Tensor& weight_grad, Tensor& bias_grad, bool want_weight, bool want_bias,
                               const Tensor& row_grads, const Tensor& row_inputs) {
    if (!want_weight && !want_bias) {
      return;
    }
    // A bias alone needs no inputs: any single column of the rows stands in for them.
    const auto [weight_sum, bias_sum] = grouped_linear_weight_grad(
        row_grads, want_weight ? row_inputs : row_grads.narrow(1, 0, std::min<int64_t>(1, row_grads.size(1))),
        route.groups.offsets, want_bias);
    if (want_weight) {
      weight_grad = weight_sum.to(dtype);
    }
    if (want_bias) {
      bias_grad = bias_sum.to(dtype);
    }
  };
  layer_grads(w1_grad, b1_grad, want_w1, want_b1, pre_grad, inputs);
  layer_grads(w2_grad, b2_grad, want_w2, want_b2, output_grad, active);
  return {
      want_x ? sum_of_choices(route, input_grad, Tensor(), dtype) : none(), w1_grad, b1_grad, w2_grad, b2_grad,
      want_score ? score_grad.view_as(factor).to(of.score.scalar_type()) : at::empty({0}, of.score.options())};
}

}  // namespace

TORCH_LIBRARY_IMPL(fmoe, CPU, library) {
  library.impl("moe_mlp", TORCH_FN(moe_mlp_unpacked<moe_mlp>));
  library.impl("moe_mlp_forward", TORCH_FN(moe_mlp_unpacked<moe_mlp_forward>));
  library.impl("moe_mlp_backward", TORCH_FN(moe_mlp_backward_unpacked<moe_mlp_backward>));
}

}  // namespace fmoe::cpu
