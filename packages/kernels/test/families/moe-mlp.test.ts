/**
 * The fused expert MLP against a loop over experts in float64.
 *
 * The bound of an error comes from a majorant: the same layer with all inputs made positive and the activation replaced by a
 * function whose value, slope and slope's slope are at least those of the activation. Its outputs and gradients bound what
 * any value is multiplied with on its way to a result, so an error is at most the number of roundings on the way times the
 * unit roundoff times the majorant. Sums run in float32 (float64 for float64); on a GPU up to eight intermediate results are
 * rounded to a half-precision dtype.
 */

import * as torch from '@fmoe/torch';
import { describeEachDevice } from '@fmoe/torch/testing';
import { expect } from 'vitest';
import { type MoeActivation, moeMlp } from '../../src/moe-mlp.js';
import { routePlan } from '../../src/route-plan.js';
import { expectInside, itInRandomCases, type RandomCase, smallest } from '../random-cases.js';
import { roundoff } from '../support.js';

type Function = (p: torch.Tensor) => torch.Tensor;

/** |f'| is at most 1.13 and |f''| at most 0.82 for GELU (both forms) and SiLU. */
const bent: Function = (p) => p.mul(1.13).add(p.square().mul(0.41));

const activations: Record<MoeActivation, { exact: Function; majorant: Function; gated: boolean }> = {
  gelu: { exact: (p) => p.gelu(), majorant: bent, gated: false },
  geluTanh: { exact: (p) => torch.gelu(p, { approximate: 'tanh' }), majorant: bent, gated: false },
  relu: { exact: (p) => p.relu(), majorant: (p) => p, gated: false },
  silu: { exact: (p) => torch.silu(p), majorant: bent, gated: false },
  swiglu: { exact: (p) => torch.silu(p), majorant: bent, gated: true },
  geglu: { exact: (p) => p.gelu(), majorant: bent, gated: true },
  reglu: { exact: (p) => p.relu(), majorant: (p) => p, gated: true },
};
const names = Object.keys(activations) as MoeActivation[];

/** x, w1, b1, w2, b2, score; a bias that is not there is null. */
type Inputs = (torch.Tensor | null)[];

/** The layer from its definition, one expert after the other. */
function loop(one: RandomCase, [x, w1, b1, w2, b2, score]: Inputs, activate: Function, gated: boolean) {
  // unbind: a select would write a whole gradient for each expert.
  const [up, down] = [w1!.unbind(0), w2!.unbind(0)];
  const [upBias, downBias] = [b1?.unbind(0), b2?.unbind(0)];
  const scores = score!.view([-1, 1]);
  let y = x!.mul(0);
  one.slotsOfExperts().forEach((slots, e) => {
    if (slots.length === 0) return;
    const tokens = one.indices(slots.map((slot) => Math.floor(slot / one.choices)));
    let inner = x!.indexSelect(0, tokens).matmul(up[e]!.t());
    if (upBias) inner = inner.add(upBias[e]!);
    const [gate, linear] = gated ? inner.chunk(2, 1) : [inner];
    const active = linear ? activate(gate!).mul(linear) : activate(gate!);
    let out = active.matmul(down[e]!.t());
    if (downBias) out = out.add(downBias[e]!);
    y = y.indexAdd(0, tokens, out.mul(scores.indexSelect(0, one.indices(slots))));
  });
  return y;
}

/** The output and the gradients of all inputs that are there; zeros for those that nothing depends on. */
function derive(inputs: Inputs, upstream: torch.Tensor, layer: (inputs: Inputs) => torch.Tensor) {
  const leaves = inputs.filter((input) => input !== null);
  const y = layer(inputs);
  const grads = torch.grad([y], leaves, { gradOutputs: [upstream], allowUnused: true });
  return [y.detach(), ...grads.map((grad, i) => grad ?? leaves[i]!.detach().mul(0))];
}

describeEachDevice('expert MLP', (device) => {
  itInRandomCases('equals a loop over experts, and its inference form has the same bits', device, (one) => {
    const few = one.ids.length > 8000;
    const width = one.pick(few ? [1, 5, 8, 13] : [1, 2, 5, 8, 13, 33, 50]);
    const hidden = one.pick(few ? [1, 3, 7, 16] : [1, 3, 7, 16, 21, 45]);
    const activation = names[one.number % names.length]!;
    const { exact, majorant, gated } = activations[activation];
    const rows = gated ? 2 * hidden : hidden;
    // The slope of ReLU jumps at 0: with whole numbers its argument is exact.
    const draw = (shape: number[], scale = 1) =>
      activation.startsWith('re') ? one.whole(shape) : one.normal(shape, one.dtype, scale);
    const biased = one.pick([true, false]);
    const inputs: Inputs = [
      draw([one.tokens, width]),
      draw([one.experts, rows, width], width ** -0.5),
      biased ? draw([one.experts, rows]) : null,
      draw([one.experts, width, hidden], hidden ** -0.5),
      biased ? draw([one.experts, width]) : null,
      one.normal([one.tokens, one.choices], one.pick([one.dtype, 'float32'])),
    ];
    const upstream = one.normal([one.tokens, width]).detach();
    const plan = routePlan(one.topIdx(), one.experts);
    const run = ([x, w1, b1, w2, b2, score]: Inputs) =>
      moeMlp(x!, { w1: w1!, b1: b1!, w2: w2!, b2: b2! }, score!, plan, activation);
    const actual = derive(inputs, upstream, run);

    const wide = (change: Function) =>
      inputs.map((input) => input && change(input.detach().double()).requiresGrad_());
    const wideUpstream = upstream.double();
    const wanted = derive(
      wide((t) => t),
      wideUpstream,
      (from) => loop(one, from, exact, gated),
    );
    const most = derive(
      wide((t) => t.abs()),
      wideUpstream.abs(),
      (from) => loop(one, from, majorant, gated),
    );
    const longest = Math.max(...one.slotsOfExperts().map((slots) => slots.length));
    const roundings = width + rows + one.choices + longest + 32;
    const unit = roundoff[one.dtype]!;
    const half = unit > roundoff['float32']!;
    const relative = roundings * Math.min(unit, roundoff['float32']!) + (half ? 8 * unit : 0);
    const labels = ['y', 'x', 'w1', 'b1', 'w2', 'b2', 'score'].filter((_, i) => i === 0 || inputs[i - 1]);
    actual.forEach((tensor, i) => {
      // The gradient of a score of another dtype is rounded to that.
      const last = wanted[i]!.abs().mul(roundoff[tensor.dtype]!);
      const bound = most[i]!.mul(relative)
        .add(last)
        .add(smallest(one.dtype) * roundings);
      expectInside(tensor, wanted[i]!, bound, labels[i]!);
    });
    expect(torch.noGrad(() => run(inputs)).equal(actual[0]!)).toBe(true);
  });
});
