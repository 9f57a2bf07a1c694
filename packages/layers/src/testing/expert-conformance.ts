/** Shape letters: D model width, r rows of an expert. */
import { cat, manualSeed, type nn, randn, type Tensor, zeros } from '@fmoe/torch';
import { expectAllClose, expectIdentical } from '@fmoe/torch/testing';
import { type ExpertSource, makeExpert } from '../experts/expert-factory.js';
import { FMoE } from '../fmoe.js';
import { type Check, expectNoLeak, expectTrue, registerChecks } from './conformance.js';
import { expectDirectionalGradient } from './directional-gradient.js';
import { FixedGate } from './fixed-gate.js';

/** Settings of {@link expertConformance}. */
export interface ExpertConformanceOptions {
  /** Width D of a token. Default 8. */
  dModel?: number;
}

/** @internal What the checks work on. */
export interface ExpertContext {
  expert: ExpertSource;
  dModel: number;
}

const exact = { rtol: 1e-10, atol: 1e-10 };

/** @internal Each property of an expert by the title of its test. */
export const expertChecks: Readonly<Record<string, Check<ExpertContext>>> = {
  'maps [r, D] to [r, any width] for any number of rows': (context, device) => {
    const expert = make(context, device);
    const widths = [0, 1, 5].map((rows) => {
      const output: unknown = run(expert, randn([rows, context.dModel], { dtype: 'float64', device }));
      const shape = (output as Tensor | null)?.shape;
      expectTrue(
        Array.isArray(shape) && shape.length === 2 && shape[0] === rows,
        `${rows} rows gave ${Array.isArray(shape) ? `[${shape.join(', ')}]` : typeof output}`,
      );
      return shape[1];
    });
    expectTrue(new Set(widths).size === 1, `the width depends on the number of rows: ${widths.join(', ')}`);
  },

  'computes each row for itself in evaluation mode': (context, device) => {
    const expert = make(context, device).eval();
    const rows = randn([5, context.dModel], { dtype: 'float64', device });
    const single = Array.from({ length: 5 }, (_, row) => run(expert, rows.narrow(0, row, 1)));
    expectAllClose(run(expert, rows), cat(single, 0), exact);
  },

  'has the gradients of finite differences, of its rows and parameters': (context, device) => {
    const expert = make(context, device).eval();
    const rows = randn([4, context.dModel], { dtype: 'float64', device, requiresGrad: true });
    const weights = randn(run(expert, rows).shape, { dtype: 'float64', device });
    const evaluate = () => run(expert, rows).mul(weights).sum();
    expectDirectionalGradient('the rows', rows, evaluate);
    for (const [name, parameter] of expert.namedParameters()) {
      if (parameter.requiresGrad) expectDirectionalGradient(name, parameter, evaluate);
    }
  },

  'gives its parameters zero gradients without rows': (context, device) => {
    const expert = make(context, device);
    const output = run(expert, zeros([0, context.dModel], { dtype: 'float64', device, requiresGrad: true }));
    if (output.requiresGrad) output.sum().backward();
    for (const [name, parameter] of expert.namedParameters()) {
      if (!parameter.requiresGrad) continue;
      expectTrue(parameter.grad !== null, `${name} has no gradient after a pass without rows`);
      expectTrue(parameter.grad.abs().sum().item() === 0, `${name} has a gradient that is not zero`);
    }
  },

  'equals the evaluation of each token in an FMoE, with dropped slots and idle experts': (
    context,
    device,
  ) => {
    const { dModel, expert } = context;
    const table = [
      [0, 2],
      [2, -1],
      [-1, -1],
    ];
    const gate = new FixedGate({ dModel, numExpert: 4, topK: 2 }, table);
    const layer = new FMoE({ numExpert: 4, dModel, topK: 2, gate, expert });
    layer.to({ dtype: 'float64', device }).eval();
    const x = randn([6, dModel], { dtype: 'float64', device });
    const experts = [...(layer.experts as nn.ModuleList)];
    const { topScore } = gate.forward(x);
    const width = run(experts[0] as nn.Module, x).shape[1] as number;
    const rows = Array.from({ length: 6 }, (_, token) => {
      const terms = (table[token % 3] as number[]).flatMap((index, slot) => {
        if (index < 0) return [];
        const output = run(experts[index] as nn.Module, x.narrow(0, token, 1));
        return [output.mul(topScore.at(token, slot))];
      });
      return terms.reduce((a, b) => a.add(b), zeros([1, width], { dtype: 'float64', device }));
    });
    expectAllClose(layer.forward(x), cat(rows, 0), exact);
  },

  'computes the same after its state dict was loaded into another': (context, device) => {
    const [first, second] = [make(context, device).eval(), make(context, device, 1).eval()];
    second.loadStateDict(first.stateDict());
    const rows = randn([5, context.dModel], { dtype: 'float64', device });
    expectIdentical(run(second, rows), run(first, rows));
  },

  'gives the same bits for the same random state, output and gradients': (context, device) => {
    const expert = make(context, device, 0, 'float32');
    const rows = randn([5, context.dModel], { device });
    const twice = [0, 1].map(() => {
      manualSeed(2);
      expert.zeroGrad();
      const output = run(expert, rows);
      if (output.requiresGrad) output.sum().backward();
      return [output, ...expert.parameters().flatMap(({ grad }) => (grad ? [grad.clone()] : []))];
    }) as [Tensor[], Tensor[]];
    twice[0].forEach((value, index) => {
      expectIdentical(twice[1][index] as Tensor, value);
    });
  },

  'leaves no tensors behind': (context, device) => {
    const expert = make(context, device, 0, 'float32');
    expectNoLeak(() => {
      const output = run(expert, randn([5, context.dModel], { device }));
      if (output.requiresGrad) output.sum().backward();
      expert.zeroGrad();
    });
  },

  'computes in bfloat16': (context, device) => {
    const expert = make(context, device, 0, 'bfloat16').eval();
    const output = run(expert, randn([5, context.dModel], { dtype: 'bfloat16', device }));
    expectTrue(output.dtype === 'bfloat16', `the output is ${output.dtype}`);
    expectTrue(output.isfinite().all().item() === 1, 'the output is not finite');
  },
};

/**
 * Registers, for vitest, what an expert must do to work in every layer: shapes for any number of rows, gradients, no rows,
 * equality with the evaluation of each token, state dict, determinism, memory, half precision.
 *
 * @example
 * expertConformance('KANExpert', KANExpert, { dModel: 8 });
 */
export function expertConformance(
  name: string,
  expert: ExpertSource,
  options: ExpertConformanceOptions = {},
): void {
  registerChecks(`${name} as an expert`, expertChecks, { expert, dModel: options.dModel ?? 8 });
}

type Dtype = 'float64' | 'float32' | 'bfloat16';

function make(context: ExpertContext, device: string, index = 0, dtype: Dtype = 'float64'): nn.Module {
  return makeExpert('expertConformance', context.expert, context.dModel, index).to({ dtype, device });
}

/** As a layer calls it. */
function run(expert: nn.Module, rows: Tensor): Tensor {
  if (expert.forward.length < 2) return expert.call(rows) as Tensor;
  return expert.call(rows, zeros([1], { dtype: 'int64' }).add(rows.shape[0] as number)) as Tensor;
}
