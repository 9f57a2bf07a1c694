/** Shape letters: T tokens, D model width, N all experts, K top-k. */
import { manualSeed, randn } from '@fmoe/torch';
import { describeEachDevice } from '@fmoe/torch/testing';
import { beforeEach, expect, it } from 'vitest';
import {
  cellsOf,
  expectCells,
  expectChoice,
  expectGradients,
  expectLosses,
  forwardTokens,
  plainLogits,
  prepare,
  tokens,
} from '../../test/gate-checks.js';
import { evenness, scoredTopK, sigmoidShares, softmax, tokenRounding } from '../../test/plain-gates.js';
import { TokenRoundingGate, type TokenRoundingGateOptions } from './token-rounding-gate.js';

beforeEach(() => {
  manualSeed(21);
});

const sizes = { dModel: 5, numExpert: 4 };
const roundings = {
  nearest: (tiles: number) => Math.floor(tiles + 0.5),
  up: Math.ceil,
  down: Math.floor,
} as const;

describeEachDevice('TokenRoundingGate', (device) => {
  for (const rounding of ['nearest', 'up', 'down'] as const) {
    for (const scoreFunction of ['softmax', 'softmaxChosen', 'sigmoid'] as const) {
      it.each([1, 2, 3, 4])(`rounds ${rounding} by ${scoreFunction}, k %i`, (k) => {
        const normalize = k % 2 === 0;
        const options = { topK: k, scoreFunction, normalize, scalingFactor: 1.5, tileSize: 4, rounding };
        const gate = prepare(new TokenRoundingGate({ ...sizes, ...options }), device);
        const x = tokens(24, 5, device);
        const logits = plainLogits(gate, x);
        const settings = { scoreFunction, normalize, scale: 1.5 };
        const cells = cellsOf(gate.forward(x), 24, 4);
        expectCells(cells, tokenRounding(logits, k, settings, 4, roundings[rounding]));
        for (const expert of [0, 1, 2, 3]) {
          expect(cells.filter((row) => row[expert] !== null).length % 4).toBe(0);
        }
        const choice = scoredTopK(logits, k, settings);
        const probability = logits.map(scoreFunction === 'sigmoid' ? sigmoidShares : softmax);
        expectLosses(gate, { balance: evenness(choice.topIdx.flat(), probability) });
        expectGradients(gate, tokens(8, 5, device));
        expectChoice(forwardTokens(gate.eval(), x), choice);
      });
    }
  }

  it('never gives an expert more than all tokens', () => {
    const gate = new TokenRoundingGate({ ...sizes, topK: 2, rounding: 'up' }).to({ device });
    const cells = cellsOf(gate.forward(randn([5, 5], { device })), 5, 4);
    for (const expert of [0, 1, 2, 3]) {
      expect([0, 5]).toContain(cells.filter((row) => row[expert] !== null).length);
    }
  });

  it('may leave nothing, and takes no tokens and one expert', () => {
    const gate = new TokenRoundingGate({ ...sizes, topK: 1, rounding: 'down' }).to({ device });
    expect(cellsOf(gate.forward(randn([5, 5], { device })), 5, 4).flat()).toEqual(new Array(20).fill(null));
    expect(cellsOf(gate.forward(randn([0, 5], { device })), 0, 4)).toEqual([]);
    const single = new TokenRoundingGate({ dModel: 5, numExpert: 1, topK: 1, tileSize: 2 }).to({ device });
    expect(cellsOf(single.forward(randn([4, 5], { device })), 4, 1)).toEqual([[1], [1], [1], [1]]);
  });

  it.each<[string, object, RegExp]>([
    ['tiles of no rows', { tileSize: 0 }, /tileSize must be an integer of at least 1/],
    ['an unknown rounding', { rounding: 'even' }, /rounding must be one of 'nearest', 'up', 'down'/],
    ['a capacity', { capacity: 1 }, /capacity does not go with/],
    ['a global batch', { globalBatch: true }, /globalBatch does not go with/],
  ])('refuses %s', (_, options, message) => {
    expect(() => new TokenRoundingGate({ ...sizes, ...options } as TokenRoundingGateOptions)).toThrow(
      expect.objectContaining({
        code: 'ERR_ARGUMENT',
        message: expect.stringMatching(message),
        op: 'TokenRoundingGate',
      }),
    );
  });
});
