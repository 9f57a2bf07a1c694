/** Shape letters: T tokens, D model width, N all experts. */
import { manualSeed, rand } from '@fmoe/torch';
import { describeEachDevice } from '@fmoe/torch/testing';
import { beforeEach, expect, it } from 'vitest';
import {
  expectChoice,
  expectGradients,
  expectLosses,
  forwardTokens,
  integers,
  matrix,
  plainLogits,
  prepare,
  tokens,
} from '../../test/gate-checks.js';
import { evenness, type PlainChoice, prune, softmax, topK } from '../../test/plain-gates.js';
import { DCGate } from './dc-gate.js';
import { GShardGate } from './gshard-gate.js';

beforeEach(() => {
  manualSeed(15);
});

const options = { dModel: 5, numExpert: 4 };

/** A second choice stays where 2 · score ≥ a number from U(0, 1). */
const dropSecond = ({ topIdx, topScore }: PlainChoice, uniform: number[]): number[][] =>
  topIdx.map(([first, second], t) => [first!, 2 * topScore[t]![1]! >= uniform[t]! ? second! : -1]);

describeEachDevice('GShardGate and DCGate', (device) => {
  const drawn = (count: number) => {
    manualSeed(77);
    const uniform = matrix(rand([count, 1], { dtype: 'float64', device })).flat();
    manualSeed(77);
    return uniform;
  };

  const kinds = [
    [
      'GShardGate',
      GShardGate,
      (rate: number, t: number) => Math.max(1, Math.floor((Math.ceil(rate * t) * 2) / 4)),
    ],
    ['DCGate', DCGate, (rate: number, t: number) => Math.ceil(rate * t)],
  ] as const;
  for (const [name, Gate, budgetOf] of kinds) {
    it.each([0.1, 0.3, 0.6, 1.2, null])(`${name} follows the paper with capacity %s`, (capacity) => {
      const gate = prepare(new Gate({ ...options, capacity }), device);
      const x = tokens(23, 5, device);
      const logits = plainLogits(gate, x);
      const uniform = drawn(23);
      const choice = topK(logits, 2);
      const budget = capacity === null ? Number.POSITIVE_INFINITY : budgetOf(capacity, 23);
      const topIdx = prune(dropSecond(choice, uniform), () => budget);
      expectChoice(forwardTokens(gate, x), { topIdx, topScore: choice.topScore });
      const first = choice.topIdx.map((row) => row[0]!);
      expectLosses(gate, { balance: evenness(first, logits.map(softmax)) });
      expect(topIdx.flat().filter((e) => e < 0).length).toBeGreaterThan(0);
      gate.eval();
      expectChoice(forwardTokens(gate, x), {
        topIdx: prune(choice.topIdx, () => budget),
        topScore: choice.topScore,
      });
      expect(gate.hasLoss).toBe(false);
    });

    it(`${name} passes gradients of scores and loss`, () => {
      expectGradients(prepare(new Gate(options), device), tokens(6, 5, device));
    });

    it(`${name} takes another capacity in evaluation`, () => {
      const gate = prepare(new Gate({ ...options, capacity: [0.2, null], randomRouting: false }), device);
      const x = tokens(30, 5, device);
      const dropped = () =>
        integers(forwardTokens(gate, x).topIdx)
          .flat()
          .filter((e) => e < 0).length;
      expect(dropped()).toBeGreaterThan(0);
      gate.eval();
      expect(dropped()).toBe(0);
    });
  }

  it('has the defaults of the reference', () => {
    expect(new GShardGate(options).capacity).toEqual([1.2, 2.4]);
    expect(new GShardGate(options).randomRouting).toBe(true);
    // Worked examples for T = 4096: 614 of 16 experts, and 4916 for all ranks together.
    const x = tokens(1, 5, device).expand([4096, 5]);
    const kept = (gate: GShardGate) =>
      integers(forwardTokens(prepare(gate, device), x).topIdx)
        .map((row) => row[0]!)
        .filter((e) => e >= 0).length;
    expect(kept(new GShardGate({ ...options, numExpert: 16, randomRouting: false }))).toBe(614);
    expect(kept(new DCGate({ ...options, numExpert: 16, randomRouting: false }))).toBe(4096);
  });

  it('drops second choices as often as the paper says', () => {
    const gate = prepare(new GShardGate({ ...options, capacity: null }), device);
    const x = tokens(1, 5, device).expand([4000, 5]);
    const { topIdx, topScore } = forwardTokens(gate, x);
    const second = matrix(topScore)[0]![1]!;
    const share = integers(topIdx).filter((row) => row[1]! >= 0).length / 4000;
    expect(Math.abs(share - 2 * second)).toBeLessThan(0.04);
  });

  it.each([1, 3])('refuses topK %i', (topK_) => {
    expect(() => new GShardGate({ ...options, topK: topK_ })).toThrow(
      expect.objectContaining({
        code: 'ERR_ARGUMENT',
        message: expect.stringMatching(/^GShardGate: .*exactly 2/),
      }),
    );
    expect(() => new DCGate({ ...options, topK: topK_ })).toThrow(/^DCGate/);
  });
});
