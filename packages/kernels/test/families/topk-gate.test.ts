/** Top-k gating against sorting and softmax in float64. */

import * as torch from '@fmoe/torch';
import { describeEachDevice } from '@fmoe/torch/testing';
import { expect } from 'vitest';
import { type ScoreFunction, topkGate } from '../../src/topk-gate.js';
import { expectInside, itInRandomCases, smallest } from '../random-cases.js';
import { roundoff } from '../support.js';

/** The scores of the chosen experts, from the definition. */
function scoresOf(
  logits: torch.Tensor,
  topIdx: torch.Tensor,
  scoreFunction: ScoreFunction,
  normalize: boolean,
): torch.Tensor {
  const chosen = logits.gather(1, topIdx);
  if (scoreFunction === 'softmaxChosen') return chosen.softmax(1);
  const score = scoreFunction === 'softmax' ? logits.softmax(1).gather(1, topIdx) : chosen.sigmoid();
  return normalize ? score.div(score.sum(1, true)) : score;
}

describeEachDevice('top-k gate', (device) => {
  itInRandomCases('chooses the best, of equal ones the lower, and scores them', device, (one) => {
    const { tokens, experts } = one;
    const k = Math.min(one.choices, experts);
    const scoreFunction = one.pick(['softmaxChosen', 'softmax', 'sigmoid'] as const);
    const normalize = one.pick([true, false]);
    const drawn = one.normal([tokens, experts], one.dtype, one.pick([0.1, 1, 8])).detach();
    // Every other case has many ties.
    const logits = one.pick([true, false]) ? drawn : drawn.mul(2).round().div(2);
    logits.requiresGrad = true;
    const biased = one.pick([true, false, false]);
    const selectionBias = biased
      ? one.normal([experts], one.dtype === 'float64' ? 'float64' : 'float32')
      : null;
    const { topIdx, topScore } = topkGate(logits, k, { scoreFunction, normalize, selectionBias });
    expect(topIdx.dtype).toBe('int64');
    expect(topScore.dtype).toBe(one.dtype === 'float64' ? 'float64' : 'float32');

    const unit = roundoff[topScore.dtype]!;
    const exactLogits = logits.detach().double().requiresGrad_();
    const plain = exactLogits.detach();
    const largest = tokens > 0 ? plain.abs().max().item() : 0;
    // A rounded difference of logits moves the exponential by as much; then come sums of N or K terms.
    const relative = unit * (8 + 2 * largest + experts);
    if (selectionBias) {
      const keys = { softmaxChosen: plain, softmax: plain.softmax(1), sigmoid: plain.sigmoid() };
      const key = keys[scoreFunction].add(selectionBias.detach().double());
      // Keys that differ by less than their rounding may swap, so their values are compared.
      const [best] = key.topk(k, 1);
      const [ids] = topIdx.sort(1);
      if (k > 1)
        expect(
          ids
            .narrow(1, 1, k - 1)
            .gt(ids.narrow(1, 0, k - 1))
            .all()
            .item(),
        ).toBeTruthy();
      expectInside(
        key.gather(1, topIdx),
        best,
        key
          .abs()
          .add(1)
          .amax([1], true)
          .mul(2 * relative),
        'keys',
      );
    } else {
      const [, order] = plain.sort({ dim: 1, descending: true, stable: true });
      expect(topIdx.equal(order.narrow(1, 0, k))).toBe(true);
    }

    const exact = scoresOf(exactLogits, topIdx, scoreFunction, normalize);
    expectInside(topScore, exact.detach(), exact.detach().mul(2 * relative), 'scores');
    const upstream = one.normal([tokens, k], topScore.dtype).detach();
    const [grad] = torch.grad([topScore], [logits], { gradOutputs: [upstream] }) as [torch.Tensor];
    const [exactGrad] = torch.grad([exact], [exactLogits], { gradOutputs: [upstream.double()] }) as [
      torch.Tensor,
    ];
    expect(grad.dtype).toBe(one.dtype);
    const bound = upstream
      .double()
      .abs()
      .sum(1, true)
      .mul(4 * relative);
    const rounding = exactGrad.abs().mul(roundoff[one.dtype]!).add(smallest(one.dtype));
    expectInside(grad, exactGrad, rounding.add(bound), 'gradient');
  });
});
