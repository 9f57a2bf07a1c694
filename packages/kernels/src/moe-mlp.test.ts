import * as torch from '@fmoe/torch';
import { describe, expect, it } from 'vitest';
import { draw, indices, numbers, routes } from '../test/support.js';
import { type MoeActivation, moeMlp } from './moe-mlp.js';
import { routePlan } from './route-plan.js';

const [width, hidden] = [5, 7];

const activations: Record<MoeActivation, (p: torch.Tensor) => torch.Tensor> = {
  gelu: (p) => p.gelu(),
  geluTanh: (p) => torch.gelu(p, { approximate: 'tanh' }),
  relu: (p) => p.relu(),
  silu: (p) => torch.silu(p),
  swiglu: (p) => torch.silu(p.narrow(1, 0, hidden)).mul(p.narrow(1, hidden, hidden)),
  geglu: (p) =>
    p
      .narrow(1, 0, hidden)
      .gelu()
      .mul(p.narrow(1, hidden, hidden)),
  reglu: (p) =>
    p
      .narrow(1, 0, hidden)
      .relu()
      .mul(p.narrow(1, hidden, hidden)),
};
const names = Object.keys(activations) as MoeActivation[];

function make(topIdx: number[][], experts: number, activation: MoeActivation) {
  const rows = activation.endsWith('glu') ? 2 * hidden : hidden;
  return {
    x: draw([topIdx.length, width]),
    w1: draw([experts, rows, width]),
    b1: draw([experts, rows]),
    w2: draw([experts, width, hidden]),
    b2: draw([experts, width]),
    score: draw([topIdx.length, topIdx[0]!.length]),
  };
}

/** The definition, one slot at a time. */
function bruteForce(topIdx: number[][], inputs: ReturnType<typeof make>, activation: MoeActivation) {
  const { x, w1, b1, w2, b2, score } = inputs;
  const tokens = topIdx.map((experts, t) => {
    const terms = experts.flatMap((e, j) => {
      if (e < 0) return [];
      const inner = x.narrow(0, t, 1).matmul(w1.select(0, e).t()).add(b1.select(0, e));
      const out = activations[activation](inner).matmul(w2.select(0, e).t()).add(b2.select(0, e));
      return [out.mul(score.at(t, j))];
    });
    const zero = x.narrow(0, t, 1).mul(0);
    return terms.reduce((a, b) => a.add(b), zero);
  });
  return torch.cat(tokens, 0);
}

describe('moeMlp', () => {
  for (const activation of names) {
    it.each(routes)(`equals the sum over the slots: ${activation}, $name`, ({ topIdx, experts }) => {
      torch.tidy(() => {
        const inputs = make(topIdx, experts, activation);
        const plan = routePlan(indices(topIdx), experts);
        const upstream = draw([topIdx.length, width]).detach();
        const all = Object.values(inputs);
        const outputs = [
          moeMlp(inputs.x, inputs, inputs.score, plan, activation),
          bruteForce(topIdx, inputs, activation),
        ];
        const [actual, exact] = outputs.map((y) => [
          y,
          ...torch.grad([y], all, { gradOutputs: [upstream], allowUnused: true }),
        ]);
        actual!.forEach((tensor, i) => {
          const wanted = exact![i] ? numbers(exact![i]!) : numbers(tensor!).map(() => 0);
          numbers(tensor!).forEach((value, j) => {
            expect(Math.abs(value - wanted[j]!)).toBeLessThan(1e-12 * (1 + Math.abs(wanted[j]!)) * 20);
          });
        });
      });
    });
  }

  it('works without biases and without gradients, to the same bits', () => {
    torch.tidy(() => {
      const { x, w1, w2, score } = make([[0, 1]], 2, 'silu');
      const plan = routePlan(indices([[0, 1]]), 2);
      const trained = moeMlp(x, { w1, w2 }, score, plan, 'silu');
      const inferred = torch.noGrad(() => moeMlp(x, { w1, w2, b1: null }, score, plan, 'silu'));
      expect(inferred.requiresGrad).toBe(false);
      expect(numbers(inferred)).toEqual(numbers(trained));
    });
  });

  it('refuses a second derivative', () => {
    torch.tidy(() => {
      const inputs = make([[0]], 1, 'gelu');
      const y = moeMlp(inputs.x, inputs, inputs.score, routePlan(indices([[0]]), 1));
      const [grad] = torch.grad([y.square().sum()], [inputs.x], { createGraph: true }) as [torch.Tensor];
      expect(() => grad.sum().backward()).toThrow(
        expect.objectContaining({ message: expect.stringContaining('no second derivative') }),
      );
    });
  });

  it('leaves the number of tensors as it was, ten steps on', () => {
    torch.tidy(() => {
      const inputs = make([[0, 1]], 2, 'swiglu');
      const plan = routePlan(indices([[0, 1]]), 2);
      const step = () =>
        torch.tidy(() => {
          const y = moeMlp(inputs.x, inputs, inputs.score, plan, 'swiglu');
          void torch.grad([y.sum()], Object.values(inputs));
        });
      step();
      const before = torch.memory().tensors;
      for (let i = 0; i < 10; i++) step();
      expect(torch.memory().tensors).toBe(before);
    });
  });

  it.each([
    ['an unknown activation', 'mish', 'ERR_ARGUMENT', "got 'mish'"],
    ['weights of another activation', 'swiglu', 'ERR_SHAPE', 'must agree in H'],
  ])('refuses %s', (_, activation, code, message) => {
    torch.tidy(() => {
      const inputs = make([[0]], 1, 'gelu');
      const plan = routePlan(indices([[0]]), 1);
      expect(() => moeMlp(inputs.x, inputs, inputs.score, plan, activation as MoeActivation)).toThrow(
        expect.objectContaining({ code, message: expect.stringContaining(message) }),
      );
    });
  });
});
