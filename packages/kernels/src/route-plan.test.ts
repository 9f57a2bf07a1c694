import * as torch from '@fmoe/torch';
import { describe, expect, it } from 'vitest';
import { indices, integers, routes, sortedSlots } from '../test/support.js';
import { routePlan } from './route-plan.js';

describe('routePlan', () => {
  for (const dtype of ['int64', 'int32'] as const) {
    it.each(routes)(`sorts by expert, then by slot: $name, ${dtype}`, ({ topIdx, experts }) => {
      torch.tidy(() => {
        const plan = routePlan(indices(topIdx, dtype), experts);
        const groups = sortedSlots(topIdx, experts);
        const sorted = groups.flat();
        const slots = topIdx.flat();
        expect(integers(plan.counts)).toEqual(groups.map((group) => group.length));
        expect(integers(plan.offsets)).toEqual(
          Array.from({ length: experts + 1 }, (_, e) => groups.slice(0, e).flat().length),
        );
        expect(integers(plan.rowSlot)).toEqual(slots.map((_, row) => sorted[row] ?? -1));
        expect(integers(plan.slotRow)).toEqual(slots.map((_, slot) => sorted.indexOf(slot)));
        expect(plan.slotRow.shape).toEqual([topIdx.length, topIdx[0]!.length]);
        for (const tensor of Object.values(plan)) expect(tensor.dtype).toBe('int64');
      });
    });
  }

  it('makes an empty plan of no tokens', () => {
    torch.tidy(() => {
      const plan = routePlan(torch.zeros([0, 2], { dtype: 'int64' }), 3);
      expect(integers(plan.offsets)).toEqual([0, 0, 0, 0]);
      expect(plan.rowSlot.shape).toEqual([0]);
      expect(plan.slotRow.shape).toEqual([0, 2]);
    });
  });

  it('sorts stably when the slots are shared out between threads', () => {
    const threads = torch.getNumThreads();
    torch.setNumThreads(2);
    try {
      torch.tidy(() => {
        // 80,000 slots, -1 to 6, by a fixed rule.
        const flat = Array.from({ length: 80_000 }, (_, i) => ((i * 7919 + (i >> 3)) % 8) - 1);
        const topIdx = indices(flat).view([40_000, 2]);
        const plan = routePlan(topIdx, 7);
        const sorted = [...flat.keys()]
          .filter((i) => flat[i]! >= 0)
          .sort((a, b) => flat[a]! - flat[b]! || a - b);
        const rowSlot = integers(plan.rowSlot);
        expect(rowSlot.slice(0, sorted.length)).toEqual(sorted);
        expect(new Set(rowSlot.slice(sorted.length))).toEqual(new Set([-1]));
        const slotRow = integers(plan.slotRow);
        expect(sorted.every((slot, row) => slotRow[slot] === row)).toBe(true);
      });
    } finally {
      torch.setNumThreads(threads);
    }
  });

  it('frees all but its four tensors', () => {
    torch.tidy(() => {
      const topIdx = indices([[0, 1]]);
      const before = torch.memory().tensors;
      routePlan(topIdx, 2);
      expect(torch.memory().tensors).toBe(before + 4);
    });
  });

  it.each([
    [
      'an id of N',
      () =>
        routePlan(
          indices([
            [0, 1],
            [3, 0],
          ]),
          3,
        ),
      'ERR_INDEX',
      'top_idx holds 3 at token 1, choice 0',
    ],
    [
      'an id below -1',
      () => routePlan(indices([[0, -2]]), 3),
      'ERR_INDEX',
      'top_idx holds -2 at token 0, choice 1',
    ],
    ['one dimension', () => routePlan(indices([0, 1]), 3), 'ERR_SHAPE', '[T, K], got shape [2]'],
    ['floating ids', () => routePlan(torch.zeros([2, 1]), 3), 'ERR_DTYPE', 'int64 or int32, got float32'],
    ['no experts', () => routePlan(indices([[0]]), 0), 'ERR_ARGUMENT', 'num_experts must be positive, got 0'],
    ['half an expert', () => routePlan(indices([[0]]), 1.5), 'ERR_ARGUMENT', 'num_experts'],
    ['no choices', () => routePlan(torch.zeros([2, 0], { dtype: 'int64' }), 1), 'ERR_SHAPE', 'K > 0'],
  ])('refuses %s', (_, call, code, message) => {
    torch.tidy(() => {
      expect(call).toThrow(expect.objectContaining({ code, message: expect.stringContaining(message) }));
    });
  });
});
