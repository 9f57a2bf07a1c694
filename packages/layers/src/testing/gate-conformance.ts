/** Shape letters: T tokens, D model width, N all experts, K top-k. */
import { FmoeError, manualSeed, nn, randn, type Tensor } from '@fmoe/torch';
import { expectAllClose, expectIdentical } from '@fmoe/torch/testing';
import { FMoE } from '../fmoe.js';
import type { BaseGate } from '../gates/base-gate.js';
import { type GateSource, makeGate } from '../gates/gate-factory.js';
import { type ResolvedRoute, resolveRoute } from '../gates/route.js';
import { type Check, expectNoLeak, expectTrue, registerChecks } from './conformance.js';
import { expectDirectionalGradient } from './directional-gradient.js';

/** Settings of {@link gateConformance}. */
export interface GateConformanceOptions {
  /** Width D of a token. Default 8. */
  dModel?: number;
  /** N. Default 6. */
  numExpert?: number;
  /** K. Default 2. */
  topK?: number;
}

/** @internal What the checks work on. */
export interface GateContext extends Required<GateConformanceOptions> {
  gate: GateSource;
}

const modes = ['training', 'evaluation'] as const;
type Dtype = 'float64' | 'float32' | 'bfloat16';

/** @internal Each property of a gate by the title of its test. */
export const gateChecks: Readonly<Record<string, Check<GateContext>>> = {
  'returns a route of finite scores, for any number of tokens, in both modes': (context, device) => {
    const gate = make(context, device);
    for (const mode of modes) {
      gate.train(mode === 'training');
      for (const tokens of [0, 1, 9]) {
        const { topIdx, topScore } = route(gate, randn([tokens, context.dModel], { device }));
        const kept = topIdx.ge(0);
        const what = `${tokens} tokens in ${mode} mode`;
        expectTrue(
          topScore.maskedFill(kept.logicalNot(), 0).isfinite().all().item() === 1,
          `a score is not finite, for ${what}`,
        );
        const most = tokens * context.numExpert;
        expectTrue(kept.sum().item() <= most, `a token has an expert twice, for ${what}`);
      }
    }
  },

  'names no expert twice for a token': (context, device) => {
    const gate = make(context, device);
    const { topIdx } = route(gate, randn([50, context.dModel], { device }));
    for (const experts of topIdx.toArray() as bigint[][]) {
      const kept = experts.filter((expert) => expert >= 0n);
      expectTrue(new Set(kept).size === kept.length, `a token chose the experts ${kept.join(', ')}`);
    }
  },

  'has scores with the gradients of finite differences, while the choice stays': (context, device) => {
    const gate = make(context, device, 'float64').eval();
    const x = randn([7, context.dModel], { dtype: 'float64', device, requiresGrad: true });
    const first = route(gate, x);
    const weights = randn(first.topScore.shape, { dtype: 'float64', device });
    const chosen = String(first.topIdx.toArray());
    let last = chosen;
    const evaluate = () => {
      const { topIdx, topScore } = route(gate, x);
      last = String(topIdx.toArray());
      return topScore.to('float64').mul(weights).maskedFill(topIdx.lt(0), 0).sum();
    };
    const isSame = () => last === chosen;
    expectDirectionalGradient('the tokens', x, evaluate, isSame);
    for (const [name, parameter] of gate.namedParameters()) {
      if (parameter.requiresGrad) expectDirectionalGradient(name, parameter, evaluate, isSame);
    }
  },

  'leaves losses that are finite scalars with finite gradients, or none': (context, device) => {
    const gate = make(context, device).train();
    for (const tokens of [0, 1, 20]) {
      route(gate, randn([tokens, context.dModel], { device }));
      const loss = gate.getLoss();
      if (loss === null) continue;
      expectTrue(loss.numel() === 1, `the loss has shape [${loss.shape.join(', ')}]`);
      expectTrue(Number.isFinite(loss.item()), `the loss of ${tokens} tokens is ${loss.item()}`);
      expectTrue(!gate.hasLoss, 'the loss is still there after it was taken');
      if (!loss.requiresGrad) continue;
      gate.zeroGrad();
      loss.sum().backward();
      for (const [name, { grad }] of gate.namedParameters()) {
        expectTrue(
          grad === null || grad.isfinite().all().item() === 1,
          `the loss of ${tokens} tokens gives ${name} a gradient that is not finite`,
        );
      }
    }
  },

  'routes an FMoE, whose output is the weighted sum of what it chose': (context, device) => {
    const { dModel, numExpert, topK } = context;
    const expert = (width: number) => new nn.Linear(width, width);
    const gate = make(context, device, 'float64');
    const layer = new FMoE({ numExpert, dModel, topK, gate, expert }).to({ dtype: 'float64', device }).eval();
    const x = randn([9, dModel], { dtype: 'float64', device });
    manualSeed(3);
    const output = layer.forward(x);
    manualSeed(3);
    const { topIdx, topScore } = route(gate, x);
    const all = [...(layer.experts as nn.ModuleList)].map((module) => module.forward(x) as Tensor);
    const expected = all.map((rows, index) => {
      const score = topScore.to('float64').maskedFill(topIdx.ne(index), 0).sum([1], true);
      return rows.mul(score);
    });
    expectAllClose(
      output,
      expected.reduce((a, b) => a.add(b)),
      { rtol: 1e-10, atol: 1e-10 },
    );
  },

  'decides the same after its state dict was loaded into another': (context, device) => {
    const [first, second] = [make(context, device).eval(), make(context, device).eval()];
    second.loadStateDict(first.stateDict());
    expectSameRoute(context, device, [first, second]);
  },

  'decides the same for the same random state': (context, device) => {
    const gate = make(context, device).train();
    const state = Object.fromEntries(
      Object.entries(gate.stateDict()).map(([key, value]) => [key, value.clone()]),
    );
    expectSameRoute(context, device, [gate, gate], () => void gate.loadStateDict(state));
  },

  'leaves no tensors behind': (context, device) => {
    const gate = make(context, device).train();
    expectNoLeak(() => {
      const { topScore } = route(gate, randn([8, context.dModel], { device, requiresGrad: true }));
      const loss = gate.getLoss();
      const total = loss ? topScore.sum().add(loss.sum()) : topScore.sum();
      if (total.requiresGrad) total.backward();
      gate.zeroGrad();
    });
  },

  'takes tokens in bfloat16': (context, device) => {
    const gate = make(context, device, 'bfloat16').eval();
    const { topIdx, topScore } = route(gate, randn([9, context.dModel], { dtype: 'bfloat16', device }));
    expectTrue(topScore.maskedFill(topIdx.lt(0), 0).isfinite().all().item() === 1, 'a score is not finite');
  },

  'refuses tokens of another width with a coded error': (context, device) => {
    const gate = make(context, device);
    let thrown: unknown;
    try {
      route(gate, randn([3, context.dModel + 1], { device }));
    } catch (error) {
      thrown = error;
    }
    expectTrue(FmoeError.isInstance(thrown), `tokens of width D + 1 gave ${thrown ?? 'no error'}`);
  },
};

/**
 * Registers, for vitest, what a gate must do to work in every layer: a valid route for any number of tokens, gradients of
 * scores and losses, state dict, determinism, memory, half precision, errors.
 *
 * @example
 * gateConformance('HashGate', HashGate, { numExpert: 8 });
 */
export function gateConformance(name: string, gate: GateSource, options: GateConformanceOptions = {}): void {
  const { dModel = 8, numExpert = 6, topK = 2 } = options;
  registerChecks(`${name} as a gate`, gateChecks, { gate, dModel, numExpert, topK });
}

function make(context: GateContext, device: string, dtype: Dtype = 'float32'): BaseGate {
  const { gate, dModel, numExpert, topK } = context;
  return makeGate('testGate', gate, { dModel, numExpert, topK, gateBias: true }).to({ dtype, device });
}

function route(gate: BaseGate, x: Tensor): ResolvedRoute {
  const context = {
    tokens: x.shape[0] as number,
    numExpert: gate.numExpert,
    gateName: gate.constructor.name,
  };
  return resolveRoute(gate.call(x), context);
}

function expectSameRoute(
  context: GateContext,
  device: string,
  gates: [BaseGate, BaseGate],
  reset: () => void = () => {},
): void {
  const x = randn([20, context.dModel], { device });
  const [first, second] = gates.map((gate) => {
    manualSeed(4);
    reset();
    return route(gate, x);
  }) as [ResolvedRoute, ResolvedRoute];
  expectIdentical(second.topIdx, first.topIdx);
  expectIdentical(second.topScore, first.topScore);
}
