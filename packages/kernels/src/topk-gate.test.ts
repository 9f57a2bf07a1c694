import * as torch from '@fmoe/torch';
import { describe, expect, it } from 'vitest';
import { draw, integers, matrix, numbers } from '../test/support.js';
import { type ScoreFunction, topkGate } from './topk-gate.js';

const sum = (values: number[]) => values.reduce((a, b) => a + b, 0);
const softmax = (values: number[]) => {
  const powers = values.map(Math.exp);
  return powers.map((power) => power / sum(powers));
};

function scoresOf(row: number[], chosen: number[], scoreFunction: ScoreFunction, normalize: boolean) {
  if (scoreFunction === 'softmaxChosen') return softmax(chosen.map((e) => row[e]!));
  const all = scoreFunction === 'softmax' ? softmax(row) : row.map((v) => 1 / (1 + Math.exp(-v)));
  const scores = chosen.map((e) => all[e]!);
  return normalize ? scores.map((score) => score / sum(scores)) : scores;
}

describe('topkGate', () => {
  for (const scoreFunction of ['softmaxChosen', 'softmax', 'sigmoid'] as const) {
    it.each([false, true])(`scores the best experts: ${scoreFunction}, normalize %s`, (normalize) => {
      torch.tidy(() => {
        const logits = draw([9, 6]);
        const { topIdx, topScore } = topkGate(logits, 3, { scoreFunction, normalize });
        const rows = matrix(logits);
        const chosen = rows.map((row) =>
          [...row.keys()].sort((a, b) => row[b]! - row[a]! || a - b).slice(0, 3),
        );
        expect(integers(topIdx)).toEqual(chosen.flat());
        const scores = rows.flatMap((row, t) => scoresOf(row, chosen[t]!, scoreFunction, normalize));
        numbers(topScore).forEach((score, i) => {
          expect(score).toBeCloseTo(scores[i]!, 12);
        });
        torch.gradcheck((x) => topkGate(x!, 3, { scoreFunction, normalize }).topScore, [logits]);
      });
    });
  }

  it('gives ties to the lower expert, and float32 scores for half precision', () => {
    torch.tidy(() => {
      const { topIdx, topScore } = topkGate(torch.tensor([[1, 3, 3, 3]]).bfloat16(), 2);
      expect(integers(topIdx)).toEqual([1, 2]);
      expect(topScore.dtype).toBe('float32');
      expect(numbers(topScore)).toEqual([0.5, 0.5]);
    });
  });

  it('lets the selection bias choose but not score', () => {
    torch.tidy(() => {
      const selectionBias = torch.tensor([0, 0, 2]);
      const { topIdx, topScore } = topkGate(torch.tensor([[1, 0, -1]]), 1, {
        scoreFunction: 'sigmoid',
        selectionBias,
      });
      expect(integers(topIdx)).toEqual([2]);
      expect(numbers(topScore)[0]).toBeCloseTo(1 / (1 + Math.E), 6);
    });
  });

  it.each([
    ['NaN', () => topkGate(torch.tensor([[0, Number.NaN]]), 1), 'ERR_ARGUMENT', 'token 0, expert 1'],
    ['more than all experts', () => topkGate(torch.zeros([2, 3]), 4), 'ERR_SHAPE', 'got 4'],
    ['a vector', () => topkGate(torch.zeros([3]), 1), 'ERR_SHAPE', '[T, N]'],
    [
      'an unknown score function',
      () => topkGate(torch.zeros([2, 3]), 1, { scoreFunction: 'max' as ScoreFunction }),
      'ERR_ARGUMENT',
      "got 'max'",
    ],
  ])('refuses %s', (_, call, code, message) => {
    torch.tidy(() => {
      expect(call).toThrow(expect.objectContaining({ code, message: expect.stringContaining(message) }));
    });
  });
});
