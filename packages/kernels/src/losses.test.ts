import * as torch from '@fmoe/torch';
import { describe, expect, it } from 'vitest';
import { draw, indices } from '../test/support.js';
import { balanceLoss, importanceLoss, loadLoss, zLoss } from './losses.js';

describe('router losses', () => {
  it('follow their formulas', () => {
    torch.tidy(() => {
      const even = torch.full([4, 2], 0.5);
      expect(balanceLoss(even, indices([3, 1])).item()).toBeCloseTo(1, 6);
      const agreed = torch.tensor([
        [1, 0],
        [1, 0],
      ]);
      expect(balanceLoss(agreed, indices([2, 0])).item()).toBeCloseTo(2, 6);
      expect(zLoss(torch.zeros([3, 4])).item()).toBeCloseTo(Math.log(4) ** 2, 5);
      // Importances 1 and 3: mean 2, unbiased variance 2.
      const score = torch.tensor([[1], [3]]);
      expect(importanceLoss(indices([[0], [1]]), score, 2).item()).toBeCloseTo(0.5, 6);
      // Without noise both tokens stay with the expert they chose: loads 2 and 0.
      const clean = torch.tensor([
        [1, 0],
        [1, 0],
      ]);
      expect(loadLoss(clean, clean, torch.zeros([2, 2]), 1).item()).toBeCloseTo(2, 6);
    });
  });

  it('have gradients', () => {
    torch.tidy(() => {
      const topIdx = indices([
        [0, 2],
        [1, -1],
      ]);
      torch.gradcheck((p) => balanceLoss(p!, indices([1, 2, 0])), [draw([2, 3])]);
      torch.gradcheck((x) => zLoss(x!), [draw([2, 3])]);
      torch.gradcheck((s) => importanceLoss(topIdx, s!, 3), [draw([2, 2])]);
      const noisy = draw([2, 3]).detach();
      const deviation = torch.full([2, 3], 0.7, { dtype: 'float64' });
      torch.gradcheck((c) => loadLoss(c!, noisy, deviation, 2), [draw([2, 3])]);
    });
  });

  it('importanceLoss refuses ids that are none', () => {
    torch.tidy(() => {
      const score = torch.ones([1, 2]);
      const wrong: [torch.Tensor, object][] = [
        [indices([[0, 9]]), { code: 'ERR_INDEX', message: expect.stringContaining('top_idx holds 9') }],
        [indices([[-2, 0]]), { code: 'ERR_INDEX' }],
        [torch.zeros([1, 2]), { code: 'ERR_DTYPE', message: expect.stringContaining('float32') }],
      ];
      for (const [topIdx, error] of wrong) {
        expect(() => importanceLoss(topIdx, score, 4)).toThrow(expect.objectContaining(error));
      }
    });
  });
});
