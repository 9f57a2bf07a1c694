import { describe, expect, it } from 'vitest';
import * as torch from '../index.js';
import { expectAllClose, expectIdentical } from './all-close.js';

describe('expectAllClose', () => {
  it('accepts equal shapes, dtypes and close values', () => {
    torch.tidy(() => {
      expectAllClose(torch.tensor([1, 2]), torch.tensor([1.000001, 2]));
      expectAllClose(torch.tensor([[1, 2]]), [[1, 2]]);
      expectAllClose(torch.tensor([Number.NaN, Number.POSITIVE_INFINITY]), [
        Number.NaN,
        Number.POSITIVE_INFINITY,
      ]);
      expectAllClose(torch.tensor([100]), [101], { rtol: 0.01 });
    });
  });

  it('says how many values differ, where and by how much', () => {
    torch.tidy(() => {
      const actual = torch.tensor([
        [1, 2, 3],
        [4, 5, 6],
      ]);
      expect(() =>
        expectAllClose(actual, [
          [1, 2.5, 3],
          [4, 5, 8],
        ]),
      ).toThrow(/^2 of 6 elements differ .*\[1, 2\], is 6 instead of 8 \(off by 2\)$/);
    });
  });

  it('refuses other shapes and dtypes, and NaN or infinity on one side only', () => {
    torch.tidy(() => {
      const one = torch.tensor([1]);
      expect(() => expectAllClose(one, [[1]])).toThrow('shapes differ: got [1], expected [1, 1]');
      expect(() => expectAllClose(one, one.double())).toThrow('dtypes differ');
      expect(() => expectAllClose(one, [Number.NaN])).toThrow('1 of 1');
      expect(() => expectAllClose(torch.tensor([Number.NaN]), [1])).toThrow('1 of 1');
      expect(() => expectAllClose(torch.tensor([Number.POSITIVE_INFINITY]), [1])).toThrow('1 of 1');
      expect(() => expectAllClose(one, [Number.POSITIVE_INFINITY])).toThrow('1 of 1');
    });
  });

  it('demands equal integers', () => {
    torch.tidy(() => {
      const large = torch.tensor([1_000_000], { dtype: 'int64' });
      expect(() => expectAllClose(large, [1_000_001])).toThrow('1 of 1');
      expectAllClose(large, [1_000_000]);
    });
  });

  it('leaves no tensors behind', () => {
    torch.tidy(() => {
      const actual = torch.tensor([1, 2], { dtype: 'bfloat16' });
      const before = torch.memory().tensors;
      expectAllClose(actual, actual);
      expect(torch.memory().tensors).toBe(before);
    });
  });
});

describe('expectIdentical', () => {
  it('tells bits apart that compare as equal', () => {
    torch.tidy(() => {
      expectIdentical(torch.tensor([1, -2]), torch.tensor([1, -2]));
      expect(() => expectIdentical(torch.tensor([0]), torch.tensor([-0]))).toThrow('bits differ at byte 3');
      expect(() => expectIdentical(torch.tensor([1]), torch.tensor([1.0000001]))).toThrow('1 of 1');
    });
  });
});
