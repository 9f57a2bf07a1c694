import { manualSeed, nn, randn, type Tensor, tensor } from '@fmoe/torch';
import { beforeEach, describe, expect, it } from 'vitest';
import { bruteForce, expectSameOutputAndGradients, unevenWeights } from '../test/brute-force.js';
import { BaseGate, FMoE, type GateOptions, type Route } from './index.js';

beforeEach(() => {
  manualSeed(4);
});

/** Narrows to half the width, so that the layer's output is not as wide as its input. */
class HalvingExpert extends nn.Module {
  readonly down: nn.Linear;
  readonly calls: number[] = [];
  constructor(dModel: number) {
    super();
    this.down = new nn.Linear(dModel, dModel / 2);
  }
  override forward(rows: Tensor): Tensor {
    this.calls.push(rows.shape[0]!);
    return this.down.forward(rows).tanh();
  }
}

class TwoLayerExpert extends nn.Module {
  readonly up: nn.Linear;
  readonly down: nn.Linear;
  constructor(dModel: number, width: number) {
    super();
    this.up = new nn.Linear(dModel, width);
    this.down = new nn.Linear(width, dModel);
  }
  override forward(rows: Tensor): Tensor {
    return this.down.forward(this.up.forward(rows).relu());
  }
}

/** Sends everything to one expert; written as a stranger would. */
class FixedGate extends BaseGate {
  readonly target: number;
  constructor(options: GateOptions & { target: number }) {
    super(options);
    this.target = options.target;
  }
  override forward(x: Tensor): Route {
    const tokens = x.shape[0]!;
    return {
      topIdx: tensor(
        Array.from({ length: tokens }, () => [this.target]),
        { dtype: 'int64' },
      ),
      topScore: tensor(
        Array.from({ length: tokens }, () => [0.5]),
        { dtype: x.dtype },
      ),
    };
  }
}

const reference = (layer: FMoE, width: number) => (x: Tensor) =>
  bruteForce(layer.gate, x, (expert, row) => layer.experts.at(expert).forward(row), width);

describe('FMoE', () => {
  it('runs a module class as each expert', () => {
    const layer = new FMoE({ numExpert: 4, dModel: 6, topK: 2, expert: HalvingExpert }).to('float64');
    const x = randn([9, 6], { dtype: 'float64', requiresGrad: true });
    expectSameOutputAndGradients(layer, x, reference(layer, 3), unevenWeights);
    expect(layer.forward(x).shape).toEqual([9, 3]);
  });

  it('runs a list of different experts', () => {
    const expert = [
      (dModel: number) => new TwoLayerExpert(dModel, 3),
      (dModel: number) => new nn.Linear(dModel, dModel),
      (dModel: number, index: number) => new TwoLayerExpert(dModel, 10 + index),
    ];
    const layer = new FMoE({ dModel: 6, topK: 2, expert }).to('float64');
    expect(layer.numExpert).toBe(3);
    expect(layer.gate.numExpert).toBe(3);
    expect([...layer.namedParameters()].map(([name]) => name)).toEqual([
      'gate.gate.weight',
      'gate.gate.bias',
      'experts.0.up.weight',
      'experts.0.up.bias',
      'experts.0.down.weight',
      'experts.0.down.bias',
      'experts.1.weight',
      'experts.1.bias',
      'experts.2.up.weight',
      'experts.2.up.bias',
      'experts.2.down.weight',
      'experts.2.down.bias',
    ]);
    const x = randn([11, 6], { dtype: 'float64', requiresGrad: true });
    expectSameOutputAndGradients(layer, x, reference(layer, 6), unevenWeights);
  });

  it('calls each expert once with all its rows, also without any, which gives zero gradients', () => {
    const gate = (options: GateOptions) => new FixedGate({ ...options, target: 1 });
    const layer = new FMoE({ numExpert: 3, dModel: 4, topK: 1, expert: HalvingExpert, gate });
    layer
      .forward(randn([5, 4]))
      .sum()
      .backward();
    expect([...layer.experts].map((expert) => (expert as HalvingExpert).calls)).toEqual([[0], [5], [0]]);
    const norms = [...layer.experts].map((expert) =>
      (expert as HalvingExpert).down.weight.grad!.norm().item(),
    );
    expect(norms[0]).toBe(0);
    expect(norms[1]).toBeGreaterThan(0);
    expect(norms[2]).toBe(0);
  });

  it('takes a gate that was made before', () => {
    const gate = new FixedGate({ dModel: 4, numExpert: 2, topK: 1, target: 0 });
    const layer = new FMoE({ numExpert: 2, dModel: 4, topK: 1, expert: HalvingExpert, gate }).to('float64');
    const x = randn([3, 4], { dtype: 'float64', requiresGrad: true });
    expectSameOutputAndGradients(layer, x, reference(layer, 2), unevenWeights);
  });

  it('rejects an expert that returns another number of rows', () => {
    class Summing extends nn.Module {
      override forward(rows: Tensor): Tensor {
        return rows.sum([0], true);
      }
    }
    const layer = new FMoE({ numExpert: 2, dModel: 4, topK: 1, expert: Summing });
    expect(() => layer.forward(randn([5, 4]))).toThrow(
      expect.objectContaining({
        code: 'ERR_SHAPE',
        message: expect.stringMatching(/expert 0 was given \d rows and returned \[1, 4\]/),
      }),
    );
  });

  it('rejects an expert that is no module', () => {
    const expert = (() => ({})) as unknown as () => nn.Module;
    expect(() => new FMoE({ numExpert: 2, dModel: 4, expert })).toThrow(
      expect.objectContaining({
        code: 'ERR_ARGUMENT',
        message: expect.stringMatching(/expert 0 is no nn.Module/),
      }),
    );
  });

  it('rejects a gate whose results do not belong to the tokens', () => {
    class ShortGate extends FixedGate {
      override forward(x: Tensor): Route {
        return super.forward(x.narrow(0, 0, 2));
      }
    }
    const gate = (options: GateOptions) => new ShortGate({ ...options, target: 0 });
    const layer = new FMoE({ numExpert: 2, dModel: 4, topK: 1, expert: HalvingExpert, gate });
    expect(() => layer.forward(randn([5, 4]))).toThrow(
      expect.objectContaining({
        code: 'ERR_SHAPE',
        message: expect.stringMatching(/topIdx \[2, 1\].*expected \[5, K\]/),
      }),
    );
  });

  it('rejects a gate that chooses an expert that does not exist', () => {
    const gate = (options: GateOptions) => new FixedGate({ ...options, target: 7 });
    const layer = new FMoE({ numExpert: 2, dModel: 4, topK: 1, expert: HalvingExpert, gate });
    expect(() => layer.forward(randn([5, 4]))).toThrow(expect.objectContaining({ code: 'ERR_INDEX' }));
  });
});
