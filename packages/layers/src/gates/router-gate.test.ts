/** What all gates with a router share. Shape letters: T tokens, D model width, N all experts, K top-k. */
import {
  autocast,
  checkpoint,
  getRngState,
  manualSeed,
  nn,
  rand,
  randn,
  type Tensor,
  tensor,
} from '@fmoe/torch';
import { describeEachDevice, expectAllClose } from '@fmoe/torch/testing';
import { beforeEach, describe, expect, it } from 'vitest';
import {
  expectChoice,
  expectGradients,
  expectLosses,
  forwardTokens,
  matrix,
  plainLogits,
  prepare,
  tokens,
} from '../../test/gate-checks.js';
import { balance, prune, softmax, sum, topK, zLoss } from '../../test/plain-gates.js';
import { FMoETransformerMLP } from '../fmoe-transformer-mlp.js';
import {
  BiasBalancedGate,
  ExpertChoiceGate,
  GroupLimitedGate,
  type GroupLimitedGateOptions,
  GShardGate,
  NaiveGate,
  NoisyGate,
  type RouterDtype,
  type RouterGate,
  type RouterOptions,
  SwipeGate,
  SwitchGate,
  TopKGate,
} from './index.js';

const { normal_ } = nn.init;

beforeEach(() => {
  manualSeed(24);
});

const sizes = { dModel: 5, numExpert: 4 };

const probabilities = (layer: FMoETransformerMLP, x: Tensor) =>
  plainLogits(layer.gate as NaiveGate, x).map(softmax);

describeEachDevice('every gate with a router', (device) => {
  const naive = (options: Partial<RouterOptions> = {}) =>
    prepare(new NaiveGate({ ...sizes, ...options }), device);

  for (const k of [1, 2, 3, 4]) {
    it.each([0.01, 0.4, 0.9, 3])(
      `keeps ⌈factor · T·K/N⌉ slots of an expert: k ${k}, factor %s`,
      (capacity) => {
        const gate = naive({ topK: k, capacity });
        const x = tokens(19, 5, device);
        const choice = topK(plainLogits(gate, x), k);
        const topIdx = prune(choice.topIdx, () => Math.ceil((capacity * 19 * k) / 4));
        const route = forwardTokens(gate, x);
        expectChoice(route, { ...choice, topIdx });
        // The plan is that of the kept slots, the loss that of what the tokens chose.
        expect(Number(route.plan!.counts.sum().item())).toBe(topIdx.flat().filter((e) => e >= 0).length);
        const probability = plainLogits(gate, x).map(softmax);
        expectLosses(gate, { balance: balance('switch', choice, probability) });
      },
    );
  }

  it('can drop every slot: outputs and gradients of zero, and a loss that is a number', () => {
    class NoneFits extends NaiveGate {
      protected override slotsPerExpert(count: Tensor): Tensor {
        return count.mul(0);
      }
    }
    const layer = new FMoETransformerMLP({
      ...sizes,
      dHidden: 6,
      gate: (options) => new NoneFits({ ...options, capacity: 1 }),
    }).to({ dtype: 'float64', device });
    const x = tokens(3, 5, device).requiresGrad_(true);
    const output = layer.forward(x);
    expect(layer.load.read()).toEqual([0, 0, 0, 0]);
    expect(output.abs().max().item()).toBe(0);
    const loss = layer.gate.getLoss()!.item();
    expect(loss).toBeCloseTo(
      balance('switch', topK(plainLogits(layer.gate as NaiveGate, x), 2), probabilities(layer, x)),
      10,
    );
    output.sum().backward();
    for (const { grad } of [x, ...layer.parameters()]) expect(grad!.abs().max().item()).toBe(0);
  });

  it.each(['switch', 'gshard', 'importance'] as const)('balances by the %s loss, weighted', (kind) => {
    const gate = naive({ balance: kind, balanceWeight: 0.25, topK: 2 });
    const x = tokens(13, 5, device);
    const logits = plainLogits(gate, x);
    gate.forward(x);
    expectLosses(gate, { balance: 0.25 * balance(kind, topK(logits, 2), logits.map(softmax)) });
    expectGradients(gate, tokens(4, 5, device));
  });

  it('adds a z-loss, and lists the losses by name', () => {
    const gate = naive({ zLossWeight: 0.1, topK: 2 });
    const x = tokens(13, 5, device);
    const logits = plainLogits(gate, x);
    gate.forward(x);
    const expected = {
      balance: balance('switch', topK(logits, 2), logits.map(softmax)),
      z: 0.1 * zLoss(logits),
    };
    expect(gate.getLoss(false)!.item()).toBeCloseTo(sum(Object.values(expected)), 10);
    expectLosses(gate, expected);
    expectGradients(gate, tokens(4, 5, device));
    gate.forward(x);
    gate.eval().forward(x);
    expect(gate.hasLoss).toBe(false);
  });

  it('multiplies the input by U(1 - jitter, 1 + jitter) in training mode, as the seed says', () => {
    const gate = naive({ jitter: 0.5, topK: 2 });
    const x = tokens(9, 5, device);
    manualSeed(2);
    const uniform = matrix(rand([9, 5], { dtype: 'float64', device }));
    const jittered = matrix(x).map((row, t) => row.map((value, d) => value * (0.5 + uniform[t]![d]!)));
    manualSeed(2);
    const route = forwardTokens(gate, x);
    expectChoice(route, topK(plainLogits(gate, tensor(jittered, { dtype: 'float64', device })), 2));
    manualSeed(2);
    expectAllClose(forwardTokens(gate, x).topScore, route.topScore, { rtol: 0, atol: 0 });
    const before = getRngState(x.device).toArray();
    expectChoice(forwardTokens(gate.eval(), x), topK(plainLogits(gate, x), 2));
    expect(getRngState(x.device).toArray()).toEqual(before);
  });

  it('computes in float32 for half-precision tokens, or where it is told to', () => {
    const x = randn([6, 5], { device }).bfloat16();
    const gate = new NaiveGate(sizes).to({ dtype: 'bfloat16', device });
    expect(forwardTokens(gate, x).topScore.dtype).toBe('float32');
    expect(gate.getLoss()!.dtype).toBe('float32');
    const wide = new NaiveGate({ ...sizes, routerDtype: 'float64' }).to({ dtype: 'bfloat16', device });
    expect(forwardTokens(wide, x).topScore.dtype).toBe('float64');
    expectChoice(forwardTokens(wide, x), topK(plainLogits(wide, x), 2));
    const narrow = new NaiveGate({ ...sizes, routerDtype: 'bfloat16' }).to({ device });
    const { topScore } = forwardTokens(narrow, x.float());
    expect(narrow.getLoss()!.dtype).toBe('float32');
    // Computed from rounded logits: near, but not the same.
    const exact = topK(plainLogits(narrow, x.float()), 2).topScore;
    expectAllClose(topScore, exact, { rtol: 0.05, atol: 0.02 });
    expect(() => expectAllClose(topScore, exact, { rtol: 1e-6, atol: 1e-7 })).toThrow();
  });

  it('takes a capacity of any size', () => {
    const gate = naive({ topK: 2, capacity: 1e30 });
    expect(
      Number(
        forwardTokens(gate, tokens(19, 5, device))
          .plan!.counts.sum()
          .item(),
      ),
    ).toBe(38);
  });

  it('takes an option that is undefined as one that is left out', () => {
    const none = { topK: undefined, capacity: undefined, jitter: undefined, balance: undefined } as object;
    const shown = ({ topK, capacity, jitter, balance }: RouterGate) => ({ topK, capacity, jitter, balance });
    for (const Gate of [SwitchGate, GShardGate, BiasBalancedGate, SwipeGate, ExpertChoiceGate]) {
      expect(shown(new Gate({ ...sizes, ...none }))).toEqual(shown(new Gate(sizes)));
    }
    const groups = { numGroups: 2, groupTopK: 1, biasUpdateRate: undefined } as object;
    const gate = new GroupLimitedGate({ ...sizes, ...none, ...groups } as GroupLimitedGateOptions);
    expect([gate.biasUpdateRate, gate.balance]).toEqual([0, 'switch']);
  });

  it('adds up losses of many tokens in float32, whatever its logits are in', () => {
    const x = randn([4000, 5], { device });
    const build = (routerDtype: RouterDtype): RouterGate[] => [
      new GroupLimitedGate({ ...sizes, numGroups: 2, groupTopK: 1, balance: 'importance', routerDtype }),
      new NoisyGate({ ...sizes, routerDtype }),
    ];
    const losses = (routerDtype: RouterDtype) =>
      build(routerDtype).map((gate) => {
        manualSeed(9);
        for (const parameter of gate.parameters()) normal_(parameter);
        manualSeed(10);
        gate.to({ device }).forward(x);
        return [...gate.getLosses().values()].map((loss) => loss.item());
      });
    const [half, wide] = [losses('float16').flat(), losses('float32').flat()];
    expect(half).toHaveLength(3);
    for (const [i, loss] of half.entries()) {
      expect(Math.abs(loss / wide[i]! - 1)).toBeLessThan(0.1);
    }
  });

  it('passes its loss through a checkpoint that returns it', () => {
    const x = tokens(6, 5, device);
    const gradients = (run: (gate: NaiveGate) => Tensor[]) => {
      manualSeed(4);
      const gate = naive({ zLossWeight: 0.1 });
      const [scores, loss] = run(gate) as [Tensor, Tensor];
      scores.square().sum().add(loss).backward();
      return gate.gate.weight.grad!;
    };
    const step = (gate: NaiveGate, input: Tensor) => [forwardTokens(gate, input).topScore, gate.getLoss()!];
    const expected = gradients((gate) => step(gate, x));
    expectAllClose(
      gradients((gate) => checkpoint((input) => step(gate, input), x)),
      expected,
      {
        rtol: 1e-12,
        atol: 1e-14,
      },
    );
    expect(expected.norm().item()).toBeGreaterThan(1e-3);
  });

  it('stays in float32 under autocast', () => {
    const x = randn([6, 5], { device });
    for (const gate of [new NaiveGate(sizes), new NoisyGate(sizes).eval()]) {
      gate.to({ device });
      const plain = forwardTokens(gate, x).topScore;
      autocast({ device, dtype: 'bfloat16' }, () => {
        expect(x.matmul(x.t()).dtype).toBe('bfloat16');
        expectAllClose(forwardTokens(gate, x).topScore, plain, { rtol: 0, atol: 0 });
        expect(x.matmul(x.t()).dtype).toBe('bfloat16');
      });
    }
  });

  it('keeps the mean entropy of its distributions on the device', () => {
    const gate = naive({ topK: 2 });
    expect(gate.readEntropy()).toBeNull();
    const entropy = (x: Tensor) => {
      const rows = plainLogits(gate, x).map(softmax);
      return sum(rows.map((row) => -sum(row.map((p) => p * Math.log(p))))) / rows.length;
    };
    const [a, b] = [tokens(5, 5, device), tokens(9, 5, device)];
    gate.forward(a);
    gate.forward(b);
    expect(gate.readEntropy({ reset: true })).toBeCloseTo((entropy(a) + entropy(b)) / 2, 5);
    expect(gate.readEntropy()).toBeNull();
    gate.eval().forward(a);
    expect(gate.readEntropy()).toBeNull();
  });
});

describe('a gate with settings out of range', () => {
  it.each<[string, object, RegExp]>([
    ['a capacity of 0', { capacity: 0 }, /capacity must be a positive number, got 0/],
    [
      'a negative capacity in evaluation',
      { capacity: [1, -1] },
      /capacity must be a positive number, got -1/,
    ],
    ['a capacity without end', { capacity: Number.POSITIVE_INFINITY }, /capacity must be/],
    ['half a capacity', { capacity: [1] }, /capacity must be a number, null, or \[training, evaluation\]/],
    ['a capacity that is none', { capacity: {} }, /capacity must be a number, null/],
    ['a jitter of 1', { jitter: 1 }, /jitter must be in \[0, 1\), got 1/],
    ['a z-loss that rewards', { zLossWeight: -1 }, /zLossWeight must be a number of at least 0/],
    ['a weight of NaN', { balanceWeight: Number.NaN }, /balanceWeight must be/],
    [
      'an unknown loss',
      { balance: 'even' },
      /balance must be one of 'switch', 'gshard', 'importance', got 'even'/,
    ],
    ['an unknown dtype', { routerDtype: 'int8' }, /routerDtype must be one of/],
    ['no width', { dModel: 0 }, /dModel must be an integer of at least 1/],
    ['more choices than experts', { topK: 5 }, /topK is 5, but there are only 4 experts/],
  ])('names the class: %s', (_, options, message) => {
    for (const Gate of [NaiveGate, TopKGate, NoisyGate]) {
      expect(() => new Gate({ ...sizes, ...options } as RouterOptions)).toThrow(
        expect.objectContaining({
          code: 'ERR_ARGUMENT',
          op: Gate.name,
          message: expect.stringMatching(message),
        }),
      );
    }
  });

  it.each([
    ['tokens of another width', randn, [3, 4], 'ERR_SHAPE'],
    ['one token without a batch', randn, [5], 'ERR_SHAPE'],
  ] as const)('refuses %s', (_, make, shape, code) => {
    expect(() => new NaiveGate(sizes).forward(make(shape))).toThrow(
      expect.objectContaining({ code, op: 'NaiveGate' }),
    );
  });

  it('refuses tokens that are not finite', () => {
    const x = tensor([[Number.NaN, 0, 0, 0, 0]]);
    for (const Gate of [NaiveGate, TopKGate]) {
      expect(() => new Gate(sizes).forward(x)).toThrow(
        expect.objectContaining({ code: 'ERR_ARGUMENT', message: expect.stringMatching(/logits hold nan/i) }),
      );
    }
  });
});
