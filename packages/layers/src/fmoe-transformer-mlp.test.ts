import { autocast, FmoeError, manualSeed, memory, nn, randn, type Tensor, tensor, tidy } from '@fmoe/torch';
import { expectAllClose } from '@fmoe/torch/testing';
import { beforeEach, describe, expect, it } from 'vitest';
import { bruteForce, expectSameOutputAndGradients, unevenWeights } from '../test/brute-force.js';
import { BaseGate, FMoETransformerMLP, type GateOptions, NaiveGate, NoisyGate, type Route } from './index.js';

beforeEach(() => {
  manualSeed(3);
});

/** One expert on one row, from the fused parameters. */
function rowExpert(layer: FMoETransformerMLP): (expert: number, row: Tensor) => Tensor {
  const { htoh4, h4toh, activation } = layer.experts;
  return (expert, row) => {
    const hidden = row.matmul(htoh4.weight.select(0, expert).t()).add(htoh4.bias!.select(0, expert));
    return activation
      .forward(hidden)
      .matmul(h4toh.weight.select(0, expert).t())
      .add(h4toh.bias!.select(0, expert));
  };
}

describe('FMoETransformerMLP', () => {
  const sizes = { dModel: 6, dHidden: 10 };

  it.each([
    { tokens: 7, numExpert: 4, topK: 2 },
    { tokens: 5, numExpert: 8, topK: 3 },
    { tokens: 3, numExpert: 16, topK: 1 },
    { tokens: 4, numExpert: 2, topK: 2 },
    { tokens: 1, numExpert: 1, topK: 1 },
  ])('equals a per-token brute force, outputs and gradients: %j', ({ tokens, numExpert, topK }) => {
    const layer = new FMoETransformerMLP({ ...sizes, numExpert, topK }).to('float64');
    const x = randn([tokens, sizes.dModel], { dtype: 'float64', requiresGrad: true });
    expectSameOutputAndGradients(
      layer,
      x,
      (input) => bruteForce(layer.gate, input, rowExpert(layer)),
      unevenWeights,
    );
  });

  it('takes any activation module', () => {
    const layer = new FMoETransformerMLP({ ...sizes, numExpert: 3, activation: new nn.ReLU() }).to('float64');
    const x = randn([6, sizes.dModel], { dtype: 'float64', requiresGrad: true });
    expectSameOutputAndGradients(
      layer,
      x,
      (input) => bruteForce(layer.gate, input, rowExpert(layer)),
      unevenWeights,
    );
  });

  it('drops slots of -1 and adds nothing for a token whose slots are all dropped', () => {
    class DroppingGate extends BaseGate {
      override forward(): Route {
        return {
          topIdx: tensor(
            [
              [0, -1],
              [-1, -1],
              [2, 1],
            ],
            { dtype: 'int64' },
          ),
          topScore: tensor(
            [
              [0.25, 0.75],
              [0.5, 0.5],
              [0.4, 0.6],
            ],
            { dtype: 'float64' },
          ),
        };
      }
    }
    const layer = new FMoETransformerMLP({ ...sizes, numExpert: 3, gate: DroppingGate }).to('float64');
    const x = randn([3, sizes.dModel], { dtype: 'float64', requiresGrad: true });
    expectSameOutputAndGradients(
      layer,
      x,
      (input) => bruteForce(layer.gate, input, rowExpert(layer)),
      unevenWeights,
    );
    expect(layer.forward(x).at(1).toArray()).toEqual([0, 0, 0, 0, 0, 0]);
  });

  it('keeps leading dimensions', () => {
    const layer = new FMoETransformerMLP({ ...sizes, numExpert: 4 }).eval();
    const x = randn([2, 3, 5, sizes.dModel]);
    const output = layer.forward(x);
    expect(output.shape).toEqual([2, 3, 5, sizes.dModel]);
    expectAllClose(output.reshape([30, sizes.dModel]), layer.forward(x.reshape([30, sizes.dModel])));
  });

  it('takes no tokens at all', () => {
    const layer = new FMoETransformerMLP({ ...sizes, numExpert: 4 });
    const output = layer.forward(randn([0, sizes.dModel]));
    expect(output.shape).toEqual([0, sizes.dModel]);
    output.sum().backward();
    expect(layer.experts.htoh4.weight.grad!.abs().sum().item()).toBe(0);
  });

  it('names its parameters as FastMoE does, fused', () => {
    const layer = new FMoETransformerMLP({ ...sizes, numExpert: 4 });
    const shapes = Object.fromEntries(
      [...layer.namedParameters()].map(([name, value]) => [name, value.shape]),
    );
    expect(shapes).toEqual({
      'gate.gate.weight': [4, 6],
      'gate.gate.bias': [4],
      'experts.htoh4.weight': [4, 10, 6],
      'experts.htoh4.bias': [4, 10],
      'experts.h4toh.weight': [4, 6, 10],
      'experts.h4toh.bias': [4, 6],
    });
    expect(Object.keys(layer.stateDict()).sort()).toEqual(Object.keys(shapes).sort());
  });

  it('draws each expert as nn.Linear would: uniform in ±1/√in', () => {
    const { htoh4, h4toh } = new FMoETransformerMLP({ numExpert: 8, dModel: 25, dHidden: 400 }).experts;
    for (const [linear, width] of [
      [htoh4, 25],
      [h4toh, 400],
    ] as const) {
      const bound = 1 / Math.sqrt(width);
      for (const value of [linear.weight, linear.bias!]) {
        const largest = value.abs().max().item();
        expect(largest).toBeLessThanOrEqual(bound);
        expect(largest).toBeGreaterThan(bound * 0.98);
        // The standard deviation of a uniform distribution is its half width over √3.
        expect(value.std().item()).toBeCloseTo(bound / Math.sqrt(3), width === 25 ? 2 : 3);
      }
    }
  });

  it('computes the experts in bfloat16 under autocast, near the float32 result', () => {
    const layer = new FMoETransformerMLP({ ...sizes, numExpert: 4 });
    const x = randn([20, sizes.dModel]);
    const plain = layer.forward(x);
    const narrow = autocast({ dtype: 'bfloat16' }, () => layer.forward(x));
    expect(narrow.dtype).toBe('bfloat16');
    // bfloat16 keeps 8 bits: a few roundings of 2^-9 relative to the largest terms.
    expectAllClose(narrow.float(), plain, { rtol: 0.03, atol: 0.02 });
    narrow.sum().backward();
    expect(layer.experts.htoh4.weight.grad!.dtype).toBe('float32');
  });

  it('is deterministic to the bit', () => {
    const layer = new FMoETransformerMLP({ ...sizes, numExpert: 4 });
    const x = randn([64, sizes.dModel]);
    expect(layer.forward(x).toArray()).toEqual(layer.forward(x).toArray());
  });

  it.each([NaiveGate, NoisyGate])('leaves no tensors behind after ten steps with %o', (gate) => {
    const layer = new FMoETransformerMLP({ ...sizes, numExpert: 4, gate });
    const step = () =>
      tidy(() => {
        layer
          .forward(randn([8, sizes.dModel]))
          .sum()
          .backward();
        layer.zeroGrad();
      });
    step();
    const before = memory().tensors;
    for (let i = 0; i < 10; i++) step();
    expect(memory().tensors).toBe(before);
  });
});

describe('FMoETransformerMLP rejects', () => {
  const make = (options: object) => () =>
    new FMoETransformerMLP({ dModel: 4, dHidden: 8, numExpert: 4, ...options });
  const wrongSize = (options: GateOptions) => new NaiveGate({ ...options, numExpert: 5 });

  it.each([
    ['topK above numExpert', make({ topK: 5 }), 'ERR_ARGUMENT', /topK is 5, but there are only 4 experts/],
    ['topK 0', make({ topK: 0 }), 'ERR_ARGUMENT', /topK must be an integer of at least 1/],
    ['no experts', make({ numExpert: 0 }), 'ERR_ARGUMENT', /numExpert/],
    ['a negative width', make({ dModel: -1 }), 'ERR_ARGUMENT', /dModel/],
    ['a fractional hidden width', make({ dHidden: 2.5 }), 'ERR_ARGUMENT', /dHidden/],
    [
      'a gate of another size',
      make({ gate: wrongSize }),
      'ERR_ARGUMENT',
      /made with numExpert 5, but the layer has 4/,
    ],
    ['a gate that is none', make({ gate: () => new nn.Linear(1, 1) }), 'ERR_ARGUMENT', /must be a BaseGate/],
    [
      'rows of another width',
      () => make({})().forward(randn([3, 5])),
      'ERR_SHAPE',
      /\[3, 5\], expected \[\.\.\., 4\]/,
    ],
    ['a scalar', () => make({})().forward(tensor(1)), 'ERR_SHAPE', /expected \[\.\.\., 4\]/],
    ['integers', () => make({})().forward(tensor([[1, 2, 3, 4]], { dtype: 'int64' })), 'ERR_DTYPE', /int64/],
  ])('%s', (_, run, code, message) => {
    try {
      run();
    } catch (error) {
      expect(error).toBeInstanceOf(FmoeError);
      expect(error).toMatchObject({ code, message: expect.stringMatching(message) });
      return;
    }
    throw new Error('nothing was thrown');
  });
});
