import { manualSeed, nn, randn, type Tensor, tidy } from '@fmoe/torch';
import { describeEachDevice } from '@fmoe/torch/testing';
import { beforeEach, describe, expect, it } from 'vitest';
import { bruteForce, expectSameOutputAndGradients, unevenWeights } from '../test/brute-force.js';
import { CountingExpert, HalvingExpert, TwoLayerExpert } from '../test/experts.js';
import { fixedGate } from '../test/fixed-gate.js';
import {
  BaseGate,
  ExpertMLP,
  FMoE,
  type FMoEOptions,
  type GateOptions,
  type Route,
  ZeroExpert,
} from './index.js';
import { FixedGate } from './testing/fixed-gate.js';

beforeEach(() => {
  manualSeed(4);
});

/** Row by row through the layer's own expert modules. */
const dense = (layer: FMoE, width: number) => (x: Tensor) =>
  bruteForce(
    layer.gate,
    x,
    (expert, row) => {
      const module = (layer.experts as nn.ModuleList).at(expert);
      return module instanceof CountingExpert ? module.linear.forward(row).sin() : module.forward(row);
    },
    width,
  );

describeEachDevice('FMoE equals the dense evaluation of each token', (device) => {
  const place = { dtype: 'float64', device } as const;

  const kinds: Record<string, () => Pick<FMoEOptions, 'expert' | 'numExpert'>> = {
    'a class': () => ({ numExpert: 4, expert: HalvingExpert }),
    'a function': () => ({ numExpert: 4, expert: (dModel, index) => new TwoLayerExpert(dModel, 2 + index) }),
    'experts with two arguments': () => ({ numExpert: 4, expert: CountingExpert }),
    'a list of different experts': () => ({
      expert: [
        (dModel) => new TwoLayerExpert(dModel, 3),
        (dModel) => new nn.Linear(dModel, dModel),
        CountingExpert,
        (dModel, index) => new TwoLayerExpert(dModel, 10 + index),
      ],
    }),
    'a list of modules, with a zero and an identity expert': () => ({
      expert: [new TwoLayerExpert(6, 3), new ZeroExpert(), new nn.Identity(), new nn.Linear(6, 6)],
    }),
  };
  for (const [kind, options] of Object.entries(kinds)) {
    it.each([1, 2, 3])(`${kind}, top-%d`, (topK) => {
      tidy(() => {
        const layer = new FMoE({ ...options(), dModel: 6, topK }).to(place);
        expect(layer.numExpert).toBe(4);
        const width = kind === 'a class' ? 3 : 6;
        const x = randn([9, 6], { ...place, requiresGrad: true });
        expectSameOutputAndGradients(layer, x, dense(layer, width), unevenWeights);
        expect(layer.forward(x).shape).toEqual([9, width]);
      });
    });
  }

  it('with drops, a token without experts and experts without tokens', () => {
    tidy(() => {
      const gate = fixedGate([
        [1, 3],
        [3, -1],
        [-1, -1],
      ]);
      const layer = new FMoE({ numExpert: 5, dModel: 6, expert: HalvingExpert, gate }).to(place);
      const x = randn([7, 6], { ...place, requiresGrad: true });
      expectSameOutputAndGradients(layer, x, dense(layer, 3), unevenWeights);
      expect(layer.forward(x).at(2).toArray()).toEqual([0, 0, 0]);
    });
  });

  it('with all experts as one module', () => {
    tidy(() => {
      const experts = new ExpertMLP({ numExpert: 4, dModel: 6, dHidden: 5, activation: 'silu' });
      const layer = new FMoE({ numExpert: 4, dModel: 6, experts }).to(place);
      const x = randn([8, 6], { ...place, requiresGrad: true });
      const { htoh4, h4toh } = experts;
      const row = (e: number, input: Tensor) =>
        input
          .matmul(htoh4.weight.select(0, e).t())
          .add(htoh4.bias!.select(0, e))
          .silu()
          .matmul(h4toh.weight.select(0, e).t())
          .add(h4toh.bias!.select(0, e));
      expectSameOutputAndGradients(layer, x, (input) => bruteForce(layer.gate, input, row), unevenWeights);
    });
  });
});

describe('FMoE', () => {
  it('names the parameters of a list of experts by their numbers', () => {
    const layer = new FMoE({ dModel: 6, expert: [HalvingExpert, (d) => new nn.Linear(d, 3)] });
    expect([...layer.namedParameters()].map(([name]) => name)).toEqual([
      'gate.gate.weight',
      'gate.gate.bias',
      'experts.0.down.weight',
      'experts.0.down.bias',
      'experts.1.weight',
      'experts.1.bias',
    ]);
  });

  it('calls each expert once with all its rows, also without any, which gives zero gradients', () => {
    const gate = fixedGate([[1]]);
    const layer = new FMoE({ numExpert: 3, dModel: 4, topK: 1, expert: HalvingExpert, gate });
    layer
      .forward(randn([5, 4]))
      .sum()
      .backward();
    const experts = [...(layer.experts as nn.ModuleList)] as HalvingExpert[];
    expect(experts.map(({ calls }) => calls)).toEqual([[0], [5], [0]]);
    const norms = experts.map(({ down }) => down.weight.grad!.norm().item());
    expect(norms[0]).toBe(0);
    expect(norms[1]).toBeGreaterThan(0);
    expect(norms[2]).toBe(0);
  });

  it('tells an expert with two arguments how many rows it gets', () => {
    const gate = fixedGate([[1], [1], [0]]);
    const layer = new FMoE({ numExpert: 3, dModel: 4, topK: 1, expert: CountingExpert, gate });
    layer.forward(randn([6, 4]));
    const counts = [...(layer.experts as nn.ModuleList)].map((expert) => (expert as CountingExpert).counts);
    expect(counts).toEqual([[2n], [4n], [0n]]);
  });

  it('takes a gate that was made before', () => {
    const gate = new FixedGate({ dModel: 4, numExpert: 2, topK: 1 }, [[0], [1]]);
    const layer = new FMoE({ numExpert: 2, dModel: 4, topK: 1, expert: HalvingExpert, gate }).to('float64');
    const x = randn([3, 4], { dtype: 'float64', requiresGrad: true });
    expectSameOutputAndGradients(layer, x, dense(layer, 2), unevenWeights);
  });

  it('passes gateBias on', () => {
    const names = (gateBias: boolean) =>
      new FMoE({ numExpert: 2, dModel: 4, expert: HalvingExpert, gateBias }).gate
        .parameters()
        .map(({ shape }) => shape);
    expect(names(true)).toEqual([[2, 4], [2]]);
    expect(names(false)).toEqual([[2, 4]]);
  });
});

describe('FMoE refuses', () => {
  const make = (options: object) => () =>
    new FMoE({ numExpert: 2, dModel: 4, topK: 1, expert: HalvingExpert, ...options });
  const run = (options: object) => () => make(options)().forward(randn([5, 4]));
  const gateOf = (forward: (x: Tensor) => unknown) => {
    class StrangeGate extends BaseGate {
      override forward(x: Tensor): Route {
        return forward(x) as Route;
      }
    }
    return StrangeGate;
  };
  class Summing extends nn.Module {
    override forward(rows: Tensor): Tensor {
      return rows.sum([0], true);
    }
  }
  class Silent extends nn.Module {
    override forward(): void {}
  }
  const shared = new nn.Linear(4, 4);

  it.each([
    ['neither experts nor expert', make({ expert: undefined }), 'ERR_ARGUMENT', /either expert or experts/],
    ['both', make({ experts: new nn.Identity() }), 'ERR_ARGUMENT', /either expert or experts/],
    ['no module as expert', make({ expert: () => ({}) }), 'ERR_ARGUMENT', /expert 0 is no nn.Module/],
    ['no module in a list', make({ expert: [HalvingExpert, 3] }), 'ERR_ARGUMENT', /expert 1 is no nn.Module/],
    ['a module twice', make({ expert: [shared, shared] }), 'ERR_ARGUMENT', /two experts are the same module/],
    ['an empty list', make({ expert: [] }), 'ERR_ARGUMENT', /numExpert/],
    [
      'a list of another length as experts',
      make({ expert: undefined, experts: new nn.ModuleList([shared]) }),
      'ERR_ARGUMENT',
      /list of 1 modules, but numExpert is 2/,
    ],
    ['topK above the length of a list', make({ expert: [shared], topK: 2 }), 'ERR_ARGUMENT', /topK is 2/],
    [
      'another number of rows',
      run({ expert: Summing }),
      'ERR_SHAPE',
      /expert 0 \(Summing\) was given \d rows and returned \[1, 4\]/,
    ],
    [
      'no tensor from an expert',
      run({ expert: Silent }),
      'ERR_SHAPE',
      /expert 0 \(Silent\) returned undefined/,
    ],
    [
      'experts of differing output widths',
      run({ expert: [HalvingExpert, (d: number) => new nn.Linear(d, d)] }),
      'ERR_SHAPE',
      /expert 1 \(Linear\) returned rows of width 4, expert 0 returned 2/,
    ],
    [
      'a gate for other tokens',
      run({
        gate: gateOf((x) =>
          new FixedGate({ dModel: 4, numExpert: 2, topK: 1 }, [[0]]).forward(x.narrow(0, 0, 2)),
        ),
      }),
      'ERR_SHAPE',
      /StrangeGate: .*\[2, 1\].*expected \[5, K\]/,
    ],
    ['a gate that chooses nothing', run({ gate: gateOf(() => null) }), 'ERR_ARGUMENT', /StrangeGate/],
    ['a gate with an expert that does not exist', run({ gate: fixedGate([[7]]) }), 'ERR_INDEX', /FixedGate/],
  ])('%s', (_, body, code, message) => {
    expect(body).toThrow(expect.objectContaining({ code, message: expect.stringMatching(message) }));
  });

  it.each([
    ['a name', 'switch'],
    ['a class of another module', nn.Linear],
    ['a class of no module', class {}],
    ['the abstract class', BaseGate],
    ['null from a function', () => null],
  ])('a gate that is %s', (_, gate) => {
    class OwnLayer extends FMoE {}
    const expert = () => new nn.Identity();
    expect(() => new OwnLayer({ numExpert: 2, dModel: 4, expert, gate: gate as never })).toThrow(
      expect.objectContaining({
        code: 'ERR_ARGUMENT',
        op: 'OwnLayer',
        argument: 'gate',
        message: expect.stringMatching(/^OwnLayer: gate must be a BaseGate/),
      }),
    );
  });

  it('a gate made for other sizes', () => {
    const gate = (options: GateOptions) => new FixedGate({ ...options, numExpert: 5 }, [[0]]);
    expect(make({ gate })).toThrow(
      expect.objectContaining({
        message: expect.stringMatching(/made with numExpert 5, but the layer has 2/),
      }),
    );
  });
});
