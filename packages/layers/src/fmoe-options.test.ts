import type { ProcessGroup } from '@fmoe/comm';
import {
  cat,
  checkpoint,
  keep,
  manualSeed,
  nn,
  type Parameter,
  randn,
  stack,
  type Tensor,
  tensor,
  tidy,
  zeros,
} from '@fmoe/torch';
import { describeEachDevice, expectAllClose } from '@fmoe/torch/testing';
import { beforeEach, describe, expect, it } from 'vitest';
import { bruteForce, expectSameOutputAndGradients, unevenWeights } from '../test/brute-force.js';
import { CountingExpert, HalvingExpert, TwoLayerExpert } from '../test/experts.js';
import { fixedGate } from '../test/fixed-gate.js';
import {
  addLoRA,
  BaseGate,
  collectBalanceLoss,
  FMoE,
  FMoETransformerMLP,
  type GateOptions,
  NaiveGate,
  type Route,
  type TokenRoute,
} from './index.js';
import { expectNoLeak } from './testing/conformance.js';
import { FixedGate } from './testing/fixed-gate.js';

beforeEach(() => {
  manualSeed(5);
});

const expert = (dModel: number) => new TwoLayerExpert(dModel, 5);
const rowOf = (layer: { experts: nn.Module }) => (index: number, row: Tensor) =>
  (layer.experts as nn.ModuleList).at(index).forward(row) as Tensor;

describeEachDevice('the options of FMoE', (device) => {
  const place = { dtype: 'float64', device } as const;
  const tokens = (count: number) => randn([count, 6], { ...place, requiresGrad: true });

  it('gateHook sees experts and scores of every decision', () => {
    tidy(() => {
      const seen: [bigint[][], number[][], BaseGate][] = [];
      const gateHook = (topIdx: Tensor, topScore: Tensor, gate: BaseGate) => {
        seen.push([topIdx.toArray() as bigint[][], topScore.toArray() as number[][], gate]);
      };
      const layer = new FMoE({ numExpert: 3, dModel: 6, expert, gateHook }).to(place);
      const x = tokens(4);
      layer.forward(x);
      const { topIdx, topScore } = layer.gate.forward(x) as TokenRoute;
      expect(seen).toEqual([[topIdx.toArray(), topScore.toArray(), layer.gate]]);
    });
  });

  it('mask keeps tokens out, and maskDict says what they get', () => {
    tidy(() => {
      const filler = tensor([1, 2, 3, 4, 5, 6], { ...place, requiresGrad: true });
      const layer = new FMoE({ numExpert: 3, dModel: 6, expert, maskDict: { 1: 0.5, 2: filler } }).to(place);
      const x = tokens(6);
      layer.mask = tensor([0, 1, 0, 2, 3, 0], { dtype: 'int64', device });
      const kept = [0, 2, 5];
      const alone = (input: Tensor) => {
        const rows = bruteForce(
          layer.gate,
          input.indexSelect(0, tensor(kept, { dtype: 'int64', device })),
          rowOf(layer),
        );
        const half = zeros([6], place).add(0.5);
        const all = [rows.at(0), half, rows.at(1), filler, zeros([6], place), rows.at(2)] as Tensor[];
        return stack(all, 0);
      };
      expectSameOutputAndGradients(layer, x, alone, unevenWeights);
      layer
        .forward(x)
        .mul(unevenWeights(zeros([6, 6], place)))
        .sum()
        .backward();
      expectAllClose(filler.grad!, unevenWeights(zeros([6, 6], place)).at(3) as Tensor);
    });
  });

  it('masked tokens are in no loss, no count and no hook', () => {
    tidy(() => {
      const hooked: number[] = [];
      const gateHook = (topIdx: Tensor) => void hooked.push(topIdx.shape[0]!);
      const layer = new FMoE({ numExpert: 3, dModel: 6, expert, gateHook }).to(place);
      const x = tokens(6);
      layer.mask = tensor(
        [
          [0, 1, 0],
          [1, 1, 0],
        ],
        { dtype: 'int64', device },
      ).ne(0);
      layer.forward(x.reshape([2, 3, 6]));
      const loss = collectBalanceLoss(layer)!.item();
      const loads = layer.load.read();
      layer.mask = null;
      layer.load.reset();
      layer.forward(x.indexSelect(0, tensor([0, 2, 5], { dtype: 'int64', device })));
      expect(loss).toBeCloseTo(collectBalanceLoss(layer)!.item(), 12);
      expect(loads).toEqual(layer.load.read());
      expect(hooked).toEqual([3, 3]);
      layer.mask = tensor([1, 1], { dtype: 'int64', device });
      expect(layer.forward(tokens(2)).abs().sum().item()).toBe(0);
    });
  });

  it('nested inputs go through gate and experts as nests', () => {
    tidy(() => {
      type Pair = { text: Tensor; more: readonly [Tensor] };
      class PairGate extends NaiveGate {
        override forward(input: Tensor): TokenRoute {
          return super.forward((input as unknown as Pair).text) as TokenRoute;
        }
      }
      class PairExpert extends nn.Module {
        readonly text: nn.Linear;
        readonly other: nn.Linear;
        constructor(dModel: number) {
          super();
          this.text = new nn.Linear(dModel, 2);
          this.other = new nn.Linear(3, dModel);
        }
        override forward({ text, more: [other] }: Pair): Pair {
          return { text: this.text.forward(text), more: [this.other.forward(other).tanh()] };
        }
      }
      const layer = new FMoE<Pair>({ numExpert: 4, dModel: 6, expert: PairExpert, gate: PairGate }).to(place);
      const x = { text: tokens(7), more: [randn([7, 3], { ...place, requiresGrad: true })] as const };
      const output = layer.forward(x);
      const gateOfText = Object.assign(Object.create(layer.gate), {
        forward: (input: Tensor) => layer.gate.forward({ text: input } as unknown as Tensor),
      }) as BaseGate;
      const experts = [...(layer.experts as nn.ModuleList)] as PairExpert[];
      const text = bruteForce(gateOfText, x.text, (e, row) => experts[e]!.text.forward(row), 2);
      expectAllClose(output.text, text, { rtol: 1e-12, atol: 1e-12 });
      const { topIdx, topScore } = layer.gate.forward(x as unknown as Tensor) as TokenRoute;
      const other = x.more[0];
      for (const [token, chosen] of (topIdx.toArray() as bigint[][]).entries()) {
        const terms = chosen.map((e, slot) =>
          experts[Number(e)]!.other.forward(other.narrow(0, token, 1))
            .tanh()
            .mul(topScore.at(token, slot)),
        );
        expectAllClose(
          output.more[0].narrow(0, token, 1),
          terms.reduce((a, b) => a.add(b)),
          { rtol: 1e-12, atol: 1e-12 },
        );
      }
      output.more[0].sum().backward();
      expect(other.grad!.abs().sum().item()).toBeGreaterThan(0);
    });
  });

  it('a shared expert sees every token', () => {
    tidy(() => {
      const layer = new FMoE({
        numExpert: 3,
        dModel: 6,
        expert,
        sharedExpert: (dModel) => new TwoLayerExpert(dModel, 9),
        gate: fixedGate([[0], [-1]]),
        topK: 1,
      }).to(place);
      expect([...layer.namedParameters()].some(([name]) => name === 'shared_experts.up.weight')).toBe(true);
      const whole = (x: Tensor) =>
        bruteForce(layer.gate, x, rowOf(layer)).add(layer.shared_experts!.forward(x) as Tensor);
      expectSameOutputAndGradients(layer, tokens(5), whole, unevenWeights);
    });
  });

  it('identity experts leave half precision as it is', () => {
    tidy(() => {
      const layer = new FMoETransformerMLP({ numExpert: 1, numIdentityExpert: 1, dModel: 6, dHidden: 4 });
      const x = randn([5, 6], { dtype: 'bfloat16', device });
      expect(layer.to({ dtype: 'bfloat16', device }).forward(x).dtype).toBe('bfloat16');
    });
  });

  it('counts the load of a checkpointed pass once', () => {
    tidy(() => {
      const layer = new FMoE({ numExpert: 3, dModel: 6, expert }).to(place);
      checkpoint((x) => layer.forward(x), tokens(5))
        .sum()
        .backward();
      expect(layer.load.read().reduce((a, b) => a + b)).toBe(10);
    });
  });

  it.each([true, false])('null experts give zero or the token itself, fused %s', (fused) => {
    tidy(() => {
      const gate = fixedGate([
        [0, 3],
        [2, 4],
        [5, 3],
        [-1, 5],
        [1, 2],
      ]);
      const layer = new FMoETransformerMLP({
        numExpert: 3,
        numZeroExpert: 1,
        numIdentityExpert: 2,
        dModel: 6,
        dHidden: 4,
        gate,
        fused,
      }).to(place);
      expect(layer.gate.numExpert).toBe(6);
      expect(layer.experts.htoh4.weight.shape[0]).toBe(3);
      const { htoh4, h4toh } = layer.experts;
      const row = (e: number, input: Tensor) => {
        if (e >= 3) return e === 3 ? input.mul(0) : input;
        return input
          .matmul(htoh4.weight.select(0, e).t())
          .add(htoh4.bias!.select(0, e))
          .gelu()
          .matmul(h4toh.weight.select(0, e).t())
          .add(h4toh.bias!.select(0, e));
      };
      expectSameOutputAndGradients(layer, tokens(11), (x) => bruteForce(layer.gate, x, row), unevenWeights);
      layer.load.reset();
      layer.forward(tokens(5));
      expect(layer.load.read()).toEqual([1, 1, 2, 2, 1, 2]);
    });
  });
});

describe('an expert-major route', () => {
  /** Expert 0 takes tokens 1 and 3, expert 1 none, expert 2 tokens 0, 1 and 4; token 2 gets none. */
  class ExpertMajorGate extends BaseGate {
    override forward(x: Tensor): Route {
      const rowToken = tensor([1, 3, 0, 1, 4, -1], { dtype: 'int64', device: x.device });
      return {
        rowToken,
        offsets: tensor([0, 2, 2, 5], { dtype: 'int64', device: x.device }),
        rowScore: x.select(1, 0).sigmoid().indexSelect(0, rowToken.clampMin(0)),
      };
    }
  }
  it.each([true, false])('goes through the layer, fused %s', (fused) => {
    tidy(() => {
      const sizes = { numExpert: 3, dModel: 6, dHidden: 4 };
      const layer = new FMoETransformerMLP({ ...sizes, gate: ExpertMajorGate, fused }).to('float64');
      const { htoh4, h4toh } = layer.experts;
      const x = randn([5, 6], { dtype: 'float64', requiresGrad: true });
      const row = (e: number, token: number, input: Tensor) =>
        input
          .narrow(0, token, 1)
          .matmul(htoh4.weight.select(0, e).t())
          .add(htoh4.bias!.select(0, e))
          .gelu()
          .matmul(h4toh.weight.select(0, e).t())
          .add(h4toh.bias!.select(0, e))
          .mul(input.at(token, 0).sigmoid());
      const chosen = [[2], [0, 2], [], [0], [2]];
      const dense = (input: Tensor) =>
        cat(
          chosen.map((experts, token) =>
            experts.reduce((sum, e) => sum.add(row(e, token, input)), input.narrow(0, token, 1).mul(0)),
          ),
          0,
        );
      expectSameOutputAndGradients(layer, x, dense, unevenWeights);
    });
  });
});

/** A group that is only asked for its size. */
const groupOf = (size: number) => ({ rank: 0, size }) as ProcessGroup;

describe('groups', () => {
  it('moeGroup of one process changes nothing and reaches the gate', () => {
    const moeGroup = groupOf(1);
    const given: GateOptions[] = [];
    const gate = (options: GateOptions) => {
      given.push(options);
      return new NaiveGate(options);
    };
    const layer = new FMoE({ numExpert: 3, dModel: 6, expert, gate, moeGroup, sliceGroup: moeGroup });
    expect(given[0]!.group).toBe(moeGroup);
    expect(layer.forward(randn([4, 6])).shape).toEqual([4, 6]);
  });

  it('markParallelComm tags the parameters', () => {
    const tags = (layer: nn.Module) =>
      Object.fromEntries(
        [...layer.namedParameters()].map(([name, value]) => [
          name,
          (value as Parameter & { dp_comm?: string }).dp_comm,
        ]),
      );
    const layer = new FMoE({
      numExpert: 1,
      topK: 1,
      dModel: 6,
      expert: HalvingExpert,
      sharedExpert: HalvingExpert,
    });
    expect(new Set(Object.values(tags(layer)))).toEqual(new Set([undefined]));
    layer.markParallelComm();
    expect(tags(layer)).toEqual({
      'gate.gate.weight': 'gate',
      'gate.gate.bias': 'gate',
      'shared_experts.down.weight': 'dp',
      'shared_experts.down.bias': 'dp',
      'experts.0.down.weight': 'none',
      'experts.0.down.bias': 'none',
    });
    const mlp = new FMoETransformerMLP({ numExpert: 2, dModel: 6, dHidden: 4, expertDpComm: 'dp' });
    expect(tags(mlp)['experts.htoh4.weight']).toBe('dp');
    expect(tags(new FMoETransformerMLP({ numExpert: 2, dModel: 6, dHidden: 4 }))['experts.h4toh.bias']).toBe(
      'none',
    );
  });
});

describe('ten steps leave no tensors behind', () => {
  const sizes = { numExpert: 3, dModel: 6 };
  const options: [string, () => FMoE][] = [
    ['modules as experts', () => new FMoE({ ...sizes, expert: CountingExpert })],
    [
      'a mask',
      () =>
        new FMoE({
          ...sizes,
          expert,
          mask: keep(tensor([0, 1, 0, 2], { dtype: 'int64' })),
          maskDict: { 1: 2 },
        }),
    ],
    [
      'a shared expert and null experts, fused',
      () =>
        new FMoETransformerMLP({
          ...sizes,
          dHidden: 4,
          sharedExpert: expert,
          numZeroExpert: 1,
          numIdentityExpert: 1,
        }),
    ],
    ['single steps', () => new FMoETransformerMLP({ ...sizes, dHidden: 4, fused: false })],
    [
      'LoRA',
      () => {
        const layer = new FMoETransformerMLP({ ...sizes, dHidden: 4 });
        addLoRA(layer, { rank: 2, dropout: 0.5 });
        return layer;
      },
    ],
  ];
  it.each(options)('%s', (_, make) => {
    const layer = make();
    expectNoLeak(() => {
      const output = layer.forward(randn([4, 6]));
      output.sum().add(collectBalanceLoss(layer)!).backward();
      layer.zeroGrad();
    });
  });
});

describe('the options refuse', () => {
  const layer = (options: object = {}) => new FMoE({ numExpert: 2, dModel: 6, expert, ...options });
  const masked = (mask: Tensor) => () => layer({ mask: keep(mask) }).forward(randn([4, 6]));
  const nested = (x: unknown) => () => layer().forward(x as Tensor);
  it.each([
    ['a mask for other tokens', masked(zeros([3], { dtype: 'int64' })), 'ERR_SHAPE', /each of 4 tokens/],
    ['a floating-point mask', masked(zeros([4])), 'ERR_DTYPE', /mask is float32/],
    ['a value for kept tokens', () => layer({ maskDict: { 0: 1 } }), 'ERR_ARGUMENT', /key 0/],
    [
      'a mask that is no tensor',
      () => layer({ mask: [0, 1, 0, 1] }).forward(randn([4, 6])),
      'ERR_ARGUMENT',
      /mask must be/,
    ],
    ['a value that is none', () => layer({ maskDict: { 1: 'a' } }), 'ERR_ARGUMENT', /has a for 1/],
    [
      'a value for kept tokens set later',
      () => {
        layer().maskDict = { 0: 7 };
      },
      'ERR_ARGUMENT',
      /key 0/,
    ],
    [
      'a value for rows of another width',
      () =>
        layer({
          mask: keep(tensor([0, 1, 0, 1], { dtype: 'int64' })),
          maskDict: { 1: keep(zeros([2, 6])) },
        }).forward(randn([4, 6])),
      'ERR_SHAPE',
      /\[2, 6\] for 1, expected a number or \[6\]/,
    ],
    [
      'experts of another width beside identity experts',
      () => layer({ expert: () => new nn.Linear(6, 1), numIdentityExpert: 1 }).forward(randn([4, 6])),
      'ERR_SHAPE',
      /experts give \[4, 1\] and identity experts \[4, 6\]/,
    ],
    [
      'a shared expert of another width',
      () => layer({ sharedExpert: () => new nn.Linear(6, 1) }).forward(randn([4, 6])),
      'ERR_SHAPE',
      /the shared expert \[4, 1\]/,
    ],
    ['a value for no mask', () => layer({ maskDict: { a: 1 } }), 'ERR_ARGUMENT', /key a/],
    ['a nest with differing rows', nested([randn([4, 6]), randn([3, 6])]), 'ERR_SHAPE', /\[4, 6\], \[3, 6\]/],
    ['an empty nest', nested({}), 'ERR_SHAPE', /got none/],
    ['a nest of something else', nested([3]), 'ERR_ARGUMENT', /got 3/],
    ['integers in a nest', nested([zeros([4, 6], { dtype: 'int64' })]), 'ERR_DTYPE', /int64/],
    [
      'a negative number of zero experts',
      () => layer({ numZeroExpert: -1 }),
      'ERR_ARGUMENT',
      /numZeroExpert/,
    ],
    [
      'a shared expert that is none',
      () => layer({ sharedExpert: () => 3 }),
      'ERR_ARGUMENT',
      /sharedExpert 0/,
    ],
    [
      'more choices than experts',
      () => layer({ topK: 4, numZeroExpert: 1 }),
      'ERR_ARGUMENT',
      /topK is 4.*only 3/,
    ],
  ])('%s', (_, body, code, message) => {
    tidy(() => {
      expect(body).toThrow(expect.objectContaining({ code, message: expect.stringMatching(message) }));
    });
  });

  it('takes a gate for the experts and null experts together', () => {
    const gate = new FixedGate({ dModel: 6, numExpert: 3 }, [[0, 2]]);
    expect(layer({ gate, numIdentityExpert: 1 }).gate).toBe(gate);
  });
});
