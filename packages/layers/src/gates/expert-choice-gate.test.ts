/** Shape letters: T tokens, D model width, N all experts, K top-k. */
import { manualSeed, randn } from '@fmoe/torch';
import { describeEachDevice } from '@fmoe/torch/testing';
import { beforeEach, expect, it } from 'vitest';
import {
  cellsOf,
  expectCells,
  expectGradients,
  expectLosses,
  plainLogits,
  prepare,
  tokens,
} from '../../test/gate-checks.js';
import { expertChoice, zLoss } from '../../test/plain-gates.js';
import { FMoETransformerMLP } from '../fmoe-transformer-mlp.js';
import { ExpertChoiceGate } from './expert-choice-gate.js';
import type { ExpertRoute } from './route.js';

beforeEach(() => {
  manualSeed(20);
});

const sizes = { dModel: 5, numExpert: 4 };

describeEachDevice('ExpertChoiceGate', (device) => {
  for (const k of [1, 2, 3, 4]) {
    it.each([0.3, 1, 1.7])(
      `gives each expert its best ⌈factor · T·K/N⌉ tokens: K ${k}, factor %s`,
      (capacity) => {
        const gate = prepare(new ExpertChoiceGate({ ...sizes, topK: k, capacity, zLossWeight: 0.5 }), device);
        const x = tokens(11, 5, device);
        const logits = plainLogits(gate, x);
        const expected = expertChoice(logits, Math.min(11, Math.ceil((capacity * 11 * k) / 4)));
        expectCells(cellsOf(gate.forward(x), 11, 4), expected);
        expectLosses(gate, { z: 0.5 * zLoss(logits) });
        expectGradients(gate, tokens(4, 5, device));
        expectCells(cellsOf(gate.eval().forward(x), 11, 4), expected);
        expect(gate.hasLoss).toBe(false);
      },
    );
  }

  it('takes another factor in evaluation, and all tokens without a limit', () => {
    const gate = new ExpertChoiceGate({ ...sizes, topK: 1, capacity: [0.5, null] }).to({ device });
    const x = randn([8, 5], { device });
    expect(
      cellsOf(gate.forward(x), 8, 4)
        .flat()
        .filter((score) => score !== null).length,
    ).toBe(4);
    expect(
      cellsOf(gate.eval().forward(x), 8, 4)
        .flat()
        .every((score) => score !== null),
    ).toBe(true);
  });

  it('takes null for no limit', () => {
    const gate = new ExpertChoiceGate({ ...sizes, topK: 1, capacity: null }).to({ device });
    expect(gate.capacity).toEqual([null, null]);
    expect((gate.forward(randn([8, 5], { device })) as ExpertRoute).rowToken.shape).toEqual([32]);
  });

  it('gives its router a gradient without tokens', () => {
    const gate = new ExpertChoiceGate({ ...sizes, topK: 1 }).to({ device });
    const { rowScore } = gate.forward(randn([0, 5], { device })) as ExpertRoute;
    rowScore.sum().backward();
    expect(gate.gate.weight.grad!.abs().sum().item()).toBe(0);
  });

  it('takes one expert, and no tokens', () => {
    const gate = new ExpertChoiceGate({ dModel: 5, numExpert: 1, topK: 1 }).to({ device });
    expect(cellsOf(gate.forward(randn([3, 5], { device })), 3, 1)).toEqual([[1], [1], [1]]);
    expect(cellsOf(gate.forward(randn([0, 5], { device })), 0, 1)).toEqual([]);
  });

  it('loads the experts of a layer evenly', () => {
    const layer = new FMoETransformerMLP({ ...sizes, dHidden: 6, topK: 2, gate: ExpertChoiceGate }).to({
      device,
    });
    expect(layer.forward(randn([3, 4, 5], { device })).shape).toEqual([3, 4, 5]);
    expect(layer.load.read()).toEqual([6, 6, 6, 6]);
  });

  it('refuses a capacity of 0', () => {
    expect(() => new ExpertChoiceGate({ ...sizes, capacity: 0 })).toThrow(
      expect.objectContaining({
        code: 'ERR_ARGUMENT',
        message: 'ExpertChoiceGate: capacity must be a positive number, got 0.',
      }),
    );
  });
});
