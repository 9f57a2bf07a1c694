/** Shape letters: T tokens, D model width, N all experts, K top-k. */
import { Placement } from '@fmoe/comm';
import { manualSeed } from '@fmoe/torch';
import { describeEachDevice } from '@fmoe/torch/testing';
import { beforeEach, expect, it } from 'vitest';
import {
  expectChoice,
  expectGradients,
  expectLosses,
  forwardTokens,
  integers,
  plainLogits,
  prepare,
  tokens,
} from '../../test/gate-checks.js';
import { runRanks } from '../../test/lockstep.js';
import { evenness, topK as plainTopK, range, softmax, swipe } from '../../test/plain-gates.js';
import { FMoETransformerMLP } from '../fmoe-transformer-mlp.js';
import { SwipeGate } from './swipe-gate.js';

beforeEach(() => {
  manualSeed(23);
});

const sizes = { dModel: 5, numExpert: 6 };

describeEachDevice('SwipeGate', (device) => {
  for (const binOfExpert of [
    [0, 0, 0, 1, 1, 1],
    [1, 0, 2, 0, 1, 0],
    [0, 1, 2, 3, 4, 5],
    [0, 0, 1, 1, null, null],
    [null, 2, 0, null, 1, 2],
  ]) {
    it.each([1, 2, 3, 4])(`evens out the bins [${binOfExpert}] in training: k %i`, (topK) => {
      const gate = prepare(new SwipeGate({ ...sizes, topK, binOfExpert }), device);
      const x = tokens(17, 5, device);
      const logits = plainLogits(gate, x);
      const route = forwardTokens(gate, x);
      expectChoice(route, swipe(logits, topK, binOfExpert));
      const chosen = integers(route.topIdx);
      const bins = new Set(binOfExpert.filter((bin) => bin !== null)).size;
      for (const bin of range(bins)) {
        const load = chosen.flat().filter((e) => binOfExpert[e] === bin).length;
        expect(load).toBeLessThanOrEqual(Math.ceil((17 * topK) / bins));
      }
      for (const row of chosen) {
        const kept = row.filter((e) => e >= 0);
        expect(new Set(kept).size).toBe(kept.length);
      }
      expect(gate.hasLoss).toBe(false);
      expectGradients(gate, tokens(5, 5, device));
      expectChoice(forwardTokens(gate.eval(), x), plainTopK(logits, topK));
    });
  }

  it('is plain top-k in one process without bins', () => {
    const gate = prepare(new SwipeGate({ ...sizes, topK: 2 }), device);
    const x = tokens(9, 5, device);
    expectChoice(forwardTokens(gate, x), plainTopK(plainLogits(gate, x), 2));
  });

  it('leaves a loss over what the tokens wanted, when asked', () => {
    const gate = prepare(new SwipeGate({ ...sizes, topK: 2, binOfExpert: range(6), balance: true }), device);
    const x = tokens(9, 5, device);
    gate.forward(x);
    const logits = plainLogits(gate, x);
    const wanted = plainTopK(logits, 2).topIdx.flat();
    expectLosses(gate, { balance: evenness(wanted, logits.map(softmax)) });
  });

  it.each([
    // Ten experts on four ranks: the first two have one more.
    ['in order', undefined, 0, [0, 0, 0, 1, 1, 1, 2, 2, 3, 3]],
    ['in order, with null experts', undefined, 2, [0, 0, 0, 1, 1, 1, 2, 2, 3, 3, null, null]],
    // Rank 1 has none: three bins.
    ['as placed, with null experts', [3, 0, 2, 2, 2, 3, 0, 3, 3, 2], 1, [2, 0, 1, 1, 1, 2, 0, 2, 2, 1, null]],
  ])('evens out the ranks of a layer %s', (_, ranks, numIdentityExpert, binOfExpert) => {
    const all = tokens(26, 5, device);
    const run = runRanks(4, (moeGroup) => {
      manualSeed(24);
      const layer = new FMoETransformerMLP({
        numExpert: 10,
        numIdentityExpert,
        dModel: 5,
        dHidden: 2,
        moeGroup,
        ...(ranks && { placement: Placement.ofRanks(ranks, 4) }),
        gate: SwipeGate,
      });
      const gate = prepare(layer.gate as SwipeGate, device);
      // 5, 6, 7 and 8 tokens.
      const first = [0, 5, 11, 18][moeGroup.rank]!;
      const route = forwardTokens(gate, all.narrow(0, first, 5 + moeGroup.rank));
      return { chosen: integers(route.topIdx), logits: plainLogits(gate, all) };
    });
    expect(run.flatMap(({ chosen }) => chosen)).toEqual(swipe(run[0]!.logits, 2, binOfExpert).topIdx);
  });

  it('takes no tokens', () => {
    const gate = prepare(new SwipeGate({ ...sizes, topK: 2, binOfExpert: range(6) }), device);
    expect(forwardTokens(gate, tokens(0, 5, device)).topIdx.shape).toEqual([0, 2]);
  });

  it.each([
    ['bins of other experts', [0, 1]],
    ['a bin without experts', [0, 0, 0, 2, 2, 2]],
    ['bins that are no numbers from 0', [0, 0, 0, -1, 1, 1]],
  ])('refuses %s', (_, binOfExpert) => {
    expect(() => new SwipeGate({ ...sizes, binOfExpert })).toThrow(
      expect.objectContaining({
        code: 'ERR_ARGUMENT',
        message: expect.stringMatching(/^SwipeGate: binOfExpert must/),
      }),
    );
  });
});
