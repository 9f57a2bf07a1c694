/** Everything about who goes where, against loops over plain arrays. */

import { describeEachDevice } from '@fmoe/torch/testing';
import { assignPos, expertCount, limitByCapacity, pruneGateByCapacity } from '../../src/capacity.js';
import { routePlan } from '../../src/route-plan.js';
import { expectIntegers, itInRandomCases } from '../random-cases.js';

describeEachDevice('routing', (device) => {
  itInRandomCases('plans a route by expert, then by slot', device, (one) => {
    const lists = one.slotsOfExperts();
    const sorted = lists.flat();
    const rowOf = new Map(sorted.map((slot, row) => [slot, row]));
    const ends = [0];
    for (const list of lists) ends.push(ends.at(-1)! + list.length);

    const plan = routePlan(one.topIdx(), one.experts);
    expectIntegers(
      plan.counts,
      lists.map((list) => list.length),
      'counts',
    );
    expectIntegers(plan.offsets, ends, 'offsets');
    expectIntegers(
      plan.rowSlot,
      one.ids.map((_, row) => sorted[row] ?? -1),
      'rowSlot',
    );
    expectIntegers(
      plan.slotRow,
      one.ids.map((_, slot) => rowOf.get(slot) ?? -1),
      'slotRow',
    );
  });

  itInRandomCases('counts and sorts slots', device, (one) => {
    const lists = one.slotsOfExperts();
    const sorted = lists.flat();
    const topIdx = one.topIdx();
    const counts = expertCount(topIdx, one.experts);
    expectIntegers(
      counts,
      lists.map((list) => list.length),
      'expertCount',
    );
    const positions = assignPos(counts.cumsum(0), topIdx);
    expectIntegers(
      positions,
      one.ids.map((_, i) => sorted[i] ?? -1),
      'assignPos',
    );
  });

  itInRandomCases('keeps first choices before second ones inside a budget', device, (one) => {
    const { ids, tokens, choices, experts } = one;
    const budget = Array.from({ length: experts }, () =>
      one.integer(0, Math.ceil((2 * ids.length) / experts)),
    );
    const left = [...budget];
    const kept = ids.map(() => -1);
    for (let choice = 0; choice < choices; choice++) {
      for (let token = 0; token < tokens; token++) {
        const slot = token * choices + choice;
        const expert = ids[slot]!;
        if (expert < 0 || left[expert]! === 0) continue;
        left[expert]!--;
        kept[slot] = expert;
      }
    }
    expectIntegers(pruneGateByCapacity(one.topIdx(), one.indices(budget)), kept, 'pruneGateByCapacity');
  });

  itInRandomCases('grants capacity to the ranks in their order', device, (one) => {
    const ranks = one.integer(1, 8);
    const capacity = Array.from({ length: one.experts }, () => one.integer(0, 100));
    const counts = Array.from({ length: ranks * one.experts }, () => one.integer(0, 50));
    const left = [...capacity];
    const granted = counts.map((count, i) => {
      const grant = Math.min(count, left[i % one.experts]!);
      left[i % one.experts]! -= grant;
      return grant;
    });
    expectIntegers(limitByCapacity(one.indices(counts), one.indices(capacity)), granted, 'limitByCapacity');
  });
});
