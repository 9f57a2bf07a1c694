// The fused expert MLP. Each thread takes an equal share of the rows and carries it, some hundred rows at a time, from
// the gathered tokens through both products while it is in the cache. The backward does so with a few experts at a time and
// ends each such wave with their weights' gradients: what these need of every row would take three times the memory of the
// saved pre-activations, were it kept for all experts. Expert outputs live until the combine and are not saved: with
// G = grad · W2ᵉ the gradient of a score is ⟨G, A⟩ + ⟨grad, b2ᵉ⟩, where A is the activation.
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

// target = the tokens of the rows from `begin` on; a target of the accumulation type widens them.
void gather(const Route& route, const Tensor& tokens, int64_t begin, Tensor target) {
  const bool widen = target.scalar_type() != tokens.scalar_type();
  const Tensor rows = widen ? at::empty(target.sizes(), tokens.options()) : target;
  const int64_t row_bytes = tokens.size(1) * tokens.element_size();
  const auto* source = static_cast<const char*>(tokens.const_data_ptr());
  auto* bytes = static_cast<char*>(rows.mutable_data_ptr());
  for (int64_t row = 0; row < target.size(0); ++row) {
    const int64_t token = route.slot_of()[begin + row] / route.choices();
    std::memcpy(bytes + row * row_bytes, source + token * row_bytes, row_bytes);
  }
  if (widen) {
    target.copy_(rows);
  }
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
      Tensor input = at::empty({size, features}, outputs.options());
      gather(route, tokens, first, input);
      linear_out(inner, input, up, up_bias);
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
  const Tensor factor = of.score.to(wide).contiguous();

  // Results may not share memory, so each unwanted one is a tensor of its own.
  const auto result = [&](bool is_wanted, at::IntArrayRef shape) {
    return is_wanted ? at::empty(shape, options) : at::empty({0}, options);
  };
  const Tensor w1_grad = result(want_w1, of.w1.sizes()), b1_grad = result(want_b1, of.w1.sizes().slice(0, 2));
  const Tensor w2_grad = result(want_w2, of.w2.sizes()), b2_grad = result(want_b2, of.w2.sizes().slice(0, 2));
  const Tensor score_grad = result(want_score, factor.sizes()).zero_();
  const Tensor input_grad = result(want_x, {route.row_count(), features});

  const int64_t wave_rows = kBlockRows * at::get_num_threads();
  for_waves(route.groups, wave_rows, [&](const Groups& wave, int64_t first_expert, int64_t first_row) {
    // What the weights' gradients need of every row of the wave.
    const Tensor inputs = at::empty({wave.rows(), features}, options);
    const Tensor pre_grad = at::empty({wave.rows(), width}, options);
    const Tensor active = at::empty({wave.rows(), hidden}, options);
    const Tensor output_grad = at::empty({wave.rows(), features}, options);
    for_row_shares(wave, features * (width + hidden), [&](int64_t expert, int64_t begin, int64_t count) {
      const Tensor up = expert_slice(of.w1, first_expert + expert), down = expert_slice(of.w2, first_expert + expert);
      const auto down_bias = expert_slice(of.b2, first_expert + expert);
      const Tensor bias_row = down_bias ? down_bias->contiguous() : Tensor();
      for_blocks(begin, count, [&](int64_t first, int64_t size) {
        const int64_t* slot = route.slot_of() + first_row + first;
        const Tensor block_pre = pre.narrow(0, first_row + first, size).to(wide);
        const Tensor block_pre_grad = pre_grad.narrow(0, first, size);
        const Tensor block_grad = output_grad.narrow(0, first, size);
        const Tensor row_factor = at::empty({size}, options), product = at::empty({size}, options);
        AT_DISPATCH_FLOATING_TYPES(wide, "moe_mlp_backward", [&] {
          for (int64_t row = 0; row < size; ++row) {
            row_factor.mutable_data_ptr<scalar_t>()[row] = factor.const_data_ptr<scalar_t>()[slot[row]];
          }
        });
        gather(route, incoming, first_row + first, block_grad);
        Tensor active_grad = block_pre_grad.narrow(1, 0, hidden);
        at::mm_out(active_grad, block_grad, down);
        activation_kernels().backward(
            {wide, activation, active.narrow(0, first, size).mutable_data_ptr(), product.mutable_data_ptr(),
             block_pre_grad.mutable_data_ptr(), block_pre.const_data_ptr(), row_factor.const_data_ptr(), size, hidden});
        // The rows of grad were needed as they came in until here; what the second layer's gradients take is scaled.
        activation_kernels().scale(
            {wide, block_grad.mutable_data_ptr(), product.mutable_data_ptr(), row_factor.const_data_ptr(),
             bias_row.defined() ? bias_row.const_data_ptr() : nullptr, size, features});
        if (want_score) {
          AT_DISPATCH_FLOATING_TYPES(wide, "moe_mlp_backward", [&] {
            for (int64_t row = 0; row < size; ++row) {
              score_grad.mutable_data_ptr<scalar_t>()[slot[row]] = product.const_data_ptr<scalar_t>()[row];
            }
          });
        }
        if (want_x) {
          Tensor target = input_grad.narrow(0, first_row + first, size);
          at::mm_out(target, block_pre_grad, up);
        }
        if (want_w1) {
          gather(route, tokens, first_row + first, inputs.narrow(0, first, size));
        }
      });
    });
    const auto part = [&](bool is_wanted, const Tensor& sums) {
      return is_wanted ? sums.narrow(0, first_expert, wave.experts()) : Tensor();
    };
    weight_grad_out(wave, pre_grad, inputs, part(want_w1, w1_grad), part(want_b1, b1_grad));
    weight_grad_out(wave, output_grad, active, part(want_w2, w2_grad), part(want_b2, b2_grad));
  });
  return {
      want_x ? sum_of_choices(route, input_grad, Tensor(), dtype) : input_grad.to(dtype), w1_grad.to(dtype),
      b1_grad.to(dtype), w2_grad.to(dtype), b2_grad.to(dtype), score_grad.to(of.score.scalar_type())};
}

}  // namespace

TORCH_LIBRARY_IMPL(fmoe, CPU, library) {
  library.impl("moe_mlp", TORCH_FN(moe_mlp_unpacked<moe_mlp>));
  library.impl("moe_mlp_forward", TORCH_FN(moe_mlp_unpacked<moe_mlp_forward>));
  library.impl("moe_mlp_backward", TORCH_FN(moe_mlp_backward_unpacked<moe_mlp_backward>));
}

}  // namespace fmoe::cpu
