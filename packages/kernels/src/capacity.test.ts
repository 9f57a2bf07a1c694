import * as torch from '@fmoe/torch';
import { describe, expect, it } from 'vitest';
import { indices, integers, routes, sortedSlots } from '../test/support.js';
import { assignPos, expertCount, limitByCapacity, pruneGateByCapacity } from './capacity.js';

describe('expertCount and assignPos', () => {
  it.each(routes)('count and sort the slots: $name', ({ topIdx, experts }) => {
    torch.tidy(() => {
      const groups = sortedSlots(topIdx, experts);
      const ids = indices(topIdx);
      const counts = expertCount(ids, experts);
      expect(integers(counts)).toEqual(groups.map((group) => group.length));
      const sorted = groups.flat();
      expect(integers(assignPos(counts.cumsum(0), ids))).toEqual(
        topIdx.flat().map((_, i) => sorted[i] ?? -1),
      );
    });
  });

  it('refuse counts of other ids', () => {
    torch.tidy(() => {
      expect(() => assignPos(indices([1, 1]), indices([0, 1]))).toThrow(
        expect.objectContaining({
          code: 'ERR_INDEX',
          message: expect.stringContaining('expert 1 more often'),
        }),
      );
    });
  });
});

describe('limitByCapacity', () => {
  it('serves the ranks in their order', () => {
    torch.tidy(() => {
      const granted = limitByCapacity(indices([3, 1, 4, 0, 2, 9]), indices([5, 2]));
      expect(integers(granted)).toEqual([3, 1, 2, 0, 0, 1]);
    });
  });
});

describe('pruneGateByCapacity', () => {
  it('keeps first choices before second ones, in token order, and leaves the budget alone', () => {
    torch.tidy(() => {
      const topIdx = indices([
        [1, 0],
        [0, 1],
        [0, -1],
      ]);
      const budget = indices([2, 1]);
      expect(integers(pruneGateByCapacity(topIdx, budget))).toEqual([1, -1, 0, -1, 0, -1]);
      expect(integers(budget)).toEqual([2, 1]);
    });
  });

  it('refuses a negative budget', () => {
    torch.tidy(() => {
      expect(() => pruneGateByCapacity(indices([[0], [1]]), indices([1, -1]))).toThrow(
        expect.objectContaining({
          code: 'ERR_INDEX',
          message: expect.stringContaining('budget holds -1 at expert 1'),
        }),
      );
    });
  });
});
