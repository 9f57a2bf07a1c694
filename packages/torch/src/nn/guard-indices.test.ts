import { expect, it } from 'vitest';
import { raiseDeviceErrors } from '../devices/device-errors.js';
import * as torch from '../index.js';
import { describeEachDevice } from '../testing/index.js';
import { clampIndices, guardIndices } from './guard-indices.js';

describeEachDevice('indices that kernels cannot check', (device) => {
  const indices = (values: number[], dtype: torch.DType = 'int64') => torch.tensor(values, { dtype, device });
  const outOfRange = expect.objectContaining({ code: 'ERR_INDEX' });

  it('are moved inside, and the next read throws', () => {
    torch.tidy(() => {
      const clamped = clampIndices('lookup', indices([-3, 0, 4, 5, 900]), 5);
      expect(() => clamped.toArray()).toThrowError(outOfRange);
      expect(clamped.toArray()).toEqual([0n, 0n, 4n, 4n, 4n]);
    });
  });

  it('keep what is inside and raise nothing', () => {
    torch.tidy(() => {
      expect(clampIndices('lookup', indices([4, 0, 2], 'int32'), 5).toArray()).toEqual([4, 0, 2]);
    });
  });

  it('may have one value outside that is ignored', () => {
    torch.tidy(() => {
      const mixed = clampIndices('loss', indices([-100, 1, -100]), 3, -100);
      expect(mixed.toArray()).toEqual([-100n, 1n, -100n]);
      const wrong = clampIndices('loss', indices([-100, -1, 2]), 3, -100);
      expect(() => raiseDeviceErrors()).toThrowError(outOfRange);
      expect(wrong.toArray()).toEqual([-100n, 0n, 2n]);
    });
  });

  it('cannot exist in an empty table', () => {
    torch.tidy(() => {
      expect(() => clampIndices('lookup', indices([0]), 0)).toThrowError(outOfRange);
      expect(clampIndices('lookup', indices([]), 0).shape).toEqual([0]);
    });
  });

  it('leave nothing behind', () => {
    torch.tidy(() => {
      const values = indices([1, 2]);
      const before = torch.memory().tensors;
      for (let i = 0; i < 10; i++) torch.tidy(() => void clampIndices('lookup', values, 5, -100));
      raiseDeviceErrors();
      expect(torch.memory().tensors).toBe(before);
    });
  });

  it('are only copied where the operators do not check', () => {
    torch.tidy(() => {
      const values = indices([1, 2]);
      expect(guardIndices('lookup', values, 5) === values).toBe(device === 'cpu');
    });
  });
});
