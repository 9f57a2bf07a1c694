/** Dispatch and combine against gathers and sums in float64. */

import * as torch from '@fmoe/torch';
import { describeEachDevice } from '@fmoe/torch/testing';
import { expect } from 'vitest';
import { combine } from '../../src/combine.js';
import { dispatch } from '../../src/dispatch.js';
import { routePlan } from '../../src/route-plan.js';
import { expectSums, itInRandomCases, type RandomCase, rowsAt } from '../random-cases.js';

/** The index tensors of the operators, and by the definition the token of each row and the row of each slot. */
function makeRoute(one: RandomCase) {
  const sorted = one.slotsOfExperts().flat();
  const rowOf = new Map(sorted.map((slot, row) => [slot, row]));
  const tokenOfRow = one.ids.map((_, row) => Math.floor((sorted[row] ?? -one.choices) / one.choices));
  return {
    plan: routePlan(one.topIdx(), one.experts),
    tokenOfRow: one.indices(tokenOfRow),
    slotOfRow: one.indices(one.ids.map((_, row) => sorted[row] ?? -1)),
    rowOfSlot: one.indices(one.ids.map((_, slot) => rowOf.get(slot) ?? -1)),
  };
}

describeEachDevice('movement', (device) => {
  itInRandomCases('dispatch copies rows and adds up their gradients', device, (one) => {
    const width = one.width();
    const { plan, tokenOfRow, rowOfSlot } = makeRoute(one);
    const x = one.normal([one.tokens, width]);
    const rows = dispatch(x, plan.rowSlot, plan.slotRow);
    expect(rows.equal(rowsAt(x.detach(), tokenOfRow))).toBe(true);

    const upstream = one.normal([one.ids.length, width]).detach();
    const [grad] = torch.grad([rows], [x], { gradOutputs: [upstream] }) as [torch.Tensor];
    const copies = rowsAt(upstream.double(), rowOfSlot).view([one.tokens, one.choices, width]);
    expectSums(grad, copies.sum(1), copies.abs().sum(1), one.choices, 'gradient');
  });

  itInRandomCases('combine adds up weighted rows', device, (one) => {
    const width = one.width();
    const { plan, tokenOfRow, slotOfRow, rowOfSlot } = makeRoute(one);
    const rows = one.normal([one.ids.length, width]);
    const score = one.normal([one.tokens, one.choices], one.pick([one.dtype, 'float32']));
    const y = combine(rows, score, plan.slotRow);
    const upstream = one.normal([one.tokens, width]).detach();
    const [rowsGrad, scoreGrad] = torch.grad([y], [rows, score], { gradOutputs: [upstream] }) as [
      torch.Tensor,
      torch.Tensor,
    ];
    expect([y.dtype, rowsGrad.dtype, scoreGrad.dtype]).toEqual([one.dtype, one.dtype, score.dtype]);

    const [wide, factor, incoming] = [rows, score, upstream].map((tensor) => tensor.detach().double());
    const bySlot = rowsAt(wide!, rowOfSlot).view([one.tokens, one.choices, width]);
    const terms = bySlot.mul(factor!.unsqueeze(2));
    expectSums(y, terms.sum(1), terms.abs().sum(1), one.choices, 'y');
    const products = bySlot.mul(incoming!.unsqueeze(1));
    expectSums(scoreGrad, products.sum(2), products.abs().sum(2), width, "the score's gradient");
    const exact = rowsAt(incoming!, tokenOfRow).mul(rowsAt(factor!.view([-1, 1]), slotOfRow));
    expectSums(rowsGrad, exact, exact.abs(), 1, "the rows' gradient");
  });
});
