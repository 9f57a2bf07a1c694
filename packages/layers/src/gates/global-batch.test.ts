/** Shape letters: T tokens of all ranks, D model width, N all experts, K top-k, W ranks. */
import { cat, manualSeed, stack, type Tensor } from '@fmoe/torch';
import { describeEachDevice, expectAllClose } from '@fmoe/torch/testing';
import { expect, it } from 'vitest';
import {
  cellsOf,
  expectCells,
  forwardTokens,
  integers,
  matrix,
  plainLogits,
  prepare,
  tokens,
} from '../../test/gate-checks.js';
import { runRanks } from '../../test/lockstep.js';
import { prune, range, swipe, topK } from '../../test/plain-gates.js';
import {
  type BaseGate,
  BiasBalancedGate,
  DCGate,
  ExpertChoiceGate,
  type GateGroup,
  type GateOptions,
  GShardGate,
  NaiveGate,
  NoisyGate,
  SwipeGate,
  SwitchGate,
  TopKGate,
} from './index.js';

/** Tokens of each rank: not equally many. */
const shares = [7, 2, 5];
const total = 14;
const sizes = { dModel: 4, numExpert: 6 };

const wholeBatch: Record<string, (options: GateOptions) => BaseGate> = {
  'NaiveGate with a capacity': (options) => new NaiveGate({ ...options, capacity: 0.7, zLossWeight: 0.1 }),
  'NaiveGate with the importance loss': (options) => new NaiveGate({ ...options, balance: 'importance' }),
  'TopKGate with sigmoids, jitter and the GShard loss': (options) =>
    new TopKGate({ ...options, scoreFunction: 'sigmoid', jitter: 0.3, balance: 'gshard' }),
  NoisyGate: (options) => new NoisyGate({ ...options, capacity: 0.8 }),
  GShardGate: (options) => new GShardGate({ ...options, capacity: 0.6 }),
  SwitchGate: (options) => new SwitchGate({ ...options, topK: 1, capacity: 0.8, jitter: 0.2 }),
};

describeEachDevice('a group of ranks', (device) => {
  const batch = (): Tensor => {
    manualSeed(40);
    return tokens(total, sizes.dModel, device);
  };
  const rowsOf = (x: Tensor, { rank }: { rank: number }): Tensor =>
    x.narrow(
      0,
      shares.slice(0, rank).reduce((a, b) => a + b, 0),
      shares[rank]!,
    );
  const seeded = <Gate extends BaseGate>(make: (options: GateOptions) => Gate, group?: GateGroup): Gate => {
    manualSeed(41);
    const gate = prepare(make({ ...sizes, ...(group && { group, globalBatch: true }) }), device);
    manualSeed(42);
    return gate;
  };
  /** Route, losses, and the gradients that the losses alone give. */
  const evaluate = (gate: BaseGate, x: Tensor) => {
    const { topIdx, topScore } = forwardTokens(gate, x);
    const losses = [...gate.getLosses(false)].map(([name, loss]) => [name, loss.item()] as const);
    gate.getLoss()!.backward();
    return { topIdx, topScore, losses, gradients: gate.parameters().map((parameter) => parameter.grad!) };
  };

  it.each(Object.keys(wholeBatch))('evaluates a global batch as one process does: %s', (name) => {
    const x = batch();
    const alone = evaluate(seeded(wholeBatch[name]!), x);
    const ranks = runRanks(3, (group) => evaluate(seeded(wholeBatch[name]!, group), rowsOf(x, group)));
    expect(
      integers(
        cat(
          ranks.map(({ topIdx }) => topIdx),
          0,
        ),
      ),
    ).toEqual(integers(alone.topIdx));
    expectAllClose(
      cat(
        ranks.map(({ topScore }) => topScore),
        0,
      ),
      alone.topScore,
      { rtol: 1e-12, atol: 1e-14 },
    );
    for (const { losses } of ranks) {
      losses.forEach(([lossName, value], i) => {
        expect(lossName).toBe(alone.losses[i]![0]);
        expect(value).toBeCloseTo(alone.losses[i]![1], 12);
      });
    }
    alone.gradients.forEach((gradient, i) => {
      const mean = stack(ranks.map(({ gradients }) => gradients[i]!)).mean([0]);
      expectAllClose(mean, gradient, { rtol: 1e-9, atol: 1e-13 });
    });
    expect(alone.gradients[0]!.norm().item()).toBeGreaterThan(1e-4);
  });

  it('chooses tokens from a global batch', () => {
    const x = batch();
    const make = (options: GateOptions) => new ExpertChoiceGate({ ...options, capacity: 0.7 });
    const expected = cellsOf(seeded(make).forward(x), total, 6);
    const ranks = runRanks(3, (group) => {
      const own = rowsOf(x, group);
      return cellsOf(seeded(make, group).forward(own), own.shape[0]!, 6);
    });
    expectCells(ranks.flat(), expected);
  });

  it('has limits of its own on each rank otherwise', () => {
    const x = batch();
    const make = (options: GateOptions) => new NaiveGate({ ...options, capacity: 0.7 });
    const ranks = runRanks(3, (group) => {
      manualSeed(41);
      const gate = prepare(make({ ...sizes, group }), device);
      return integers(forwardTokens(gate, rowsOf(x, group)).topIdx);
    });
    ranks.forEach((topIdx, rank) => {
      const alone = seeded(make);
      expect(topIdx).toEqual(integers(forwardTokens(alone, rowsOf(x, { rank })).topIdx));
    });
  });

  it('shares the capacity of DCGate in any case, the first choices of all ranks first', () => {
    const x = batch();
    const dc = (group?: GateGroup) =>
      prepare(new DCGate({ ...sizes, capacity: 0.8, randomRouting: false, ...(group && { group }) }), device);
    const run = (group: GateGroup) => {
      manualSeed(41);
      return integers(forwardTokens(dc(group), rowsOf(x, group)).topIdx);
    };
    manualSeed(41);
    const { topIdx } = topK(plainLogits(dc(), x), 2);
    const budget = Math.ceil((0.8 * total) / 3);
    expect(runRanks(3, run).flat()).toEqual(prune(topIdx, () => budget));
    expect(prune(topIdx, () => budget)).not.toEqual(topIdx);
  });

  it.each([1, 2, 3])('evens out the ranks with SwipeGate when all tokens like the first: k %i', (k) => {
    const x = batch();
    const make = (group?: GateGroup) => {
      manualSeed(41);
      const gate = prepare(new SwipeGate({ ...sizes, topK: k, ...(group && { group }) }), device);
      // The experts of rank 0: tokens of all ranks are refused there and line up for the other two.
      gate.gate.bias!.requiresGrad_(false).narrow(0, 0, 2).add_(3);
      return gate;
    };
    const expected = swipe(
      plainLogits(make(), x),
      k,
      range(6).map((e) => Math.floor(e / 2)),
    );
    const ranks = runRanks(3, (group) => {
      const { topIdx, topScore } = forwardTokens(make(group), rowsOf(x, group));
      return { topIdx: integers(topIdx), topScore: matrix(topScore) };
    });
    expect(ranks.flatMap(({ topIdx }) => topIdx)).toEqual(expected.topIdx);
    ranks
      .flatMap(({ topScore }) => topScore)
      .forEach((row, t) => {
        row.forEach((score, j) => {
          expect(score).toBeCloseTo(expected.topScore[t]![j]!, 12);
        });
      });
  });

  it('moves the biases of BiasBalancedGate alike on all ranks, by the loads of all', () => {
    const x = batch();
    const bias = (x_: Tensor, group?: GateGroup) => {
      manualSeed(41);
      const gate = prepare(
        new BiasBalancedGate({ ...sizes, biasUpdateRate: 0.1, ...(group && { group }) }),
        device,
      );
      gate.forward(x_);
      return gate.expert_bias.cpu().toArray();
    };
    const expected = bias(x);
    for (const other of runRanks(3, (group) => bias(rowsOf(x, group), group)))
      expect(other).toEqual(expected);
    expect(expected).toContain(0.1);
  });
});
