import { type FmoeError, memory, randn, tidy } from '@fmoe/torch';
import { describe, expect, it } from 'vitest';
import { LocalGroup } from './local-group.js';
import type { ReduceOp } from './process-group.js';

describe('LocalGroup', () => {
  const group = new LocalGroup();

  it('is rank 0 of 1', () => {
    expect([group.rank, group.size, group.members]).toEqual([0, 1, [0]]);
  });

  it('gives back what one member sent, in memory of its own', () => {
    tidy(() => {
      const x = randn([3, 2]);
      const expected = x.toArray();
      for (const result of [
        group.allGather(x, [3]),
        group.reduceScatter(x, [3], 'mean'),
        group.allToAll(x, [3], [3]),
      ]) {
        expect(result.toArray()).toEqual(expected);
        result.zero_();
        expect(x.toArray()).toEqual(expected);
      }
      expect(group.allReduce_(x, 'max')).toBe(x);
      expect(group.broadcast_(x, 0)).toBe(x);
      expect(x.toArray()).toEqual(expected);
    });
  });

  it.each([
    ['too many counts', 'ERR_ARGUMENT', () => group.allToAll(randn([2]), [1, 1], [2])],
    ['a wrong count', 'ERR_SHAPE', () => group.allGather(randn([2]), [3])],
    ['a root outside', 'ERR_INDEX', () => group.broadcast_(randn([2]), 1)],
    ['an unknown reduction', 'ERR_ARGUMENT', () => group.allReduce_(randn([2]), 'median' as ReduceOp)],
  ])('refuses %s', (_, code, call) => {
    const before = memory().tensors;
    tidy(() => {
      let thrown: unknown;
      try {
        call();
      } catch (error) {
        thrown = error;
      }
      expect((thrown as FmoeError).code).toBe(code);
    });
    expect(memory().tensors).toBe(before);
  });
});
