import { expect, it } from 'vitest';
import { readCases } from '../../test/optim-fixtures.js';
import * as torch from '../index.js';
import { describeEachDevice, expectAllClose, type NestedNumbers } from '../testing/index.js';

const { clipGradNorm_, clipGradValue_ } = torch.optim;

interface ClipCase {
  normType: number | 'inf';
  maxNorm: number;
  grads: NestedNumbers[];
  norm: number;
  clipped: NestedNumbers[];
}

const cases = readCases<ClipCase>('optim-clip.json');

describeEachDevice('gradient clipping', (device) => {
  function withGrads(grads: NestedNumbers[], dtypes: torch.DType[] = []): torch.Tensor[] {
    return grads.map((values, i) => {
      const grad = torch.tensor(values, { dtype: dtypes[i] ?? 'float64', device });
      const param = torch.zerosLike(grad).requiresGrad_();
      param.grad = grad;
      return param;
    });
  }

  it.each(cases)('by norm equals PyTorch: order $normType, limit $maxNorm', (fixture) => {
    torch.tidy(() => {
      const normType = fixture.normType === 'inf' ? Number.POSITIVE_INFINITY : fixture.normType;
      const params = withGrads(fixture.grads);
      const norm = clipGradNorm_(params, fixture.maxNorm, { normType });
      expectAllClose(norm, fixture.norm, { rtol: 1e-14 });
      params.forEach((param, i) => {
        expectAllClose(param.grad!, fixture.clipped[i]!, { rtol: 1e-13, atol: 1e-16 });
      });
    });
  });

  it('takes gradients of several dtypes, single tensors, and parameters without gradients', () => {
    torch.tidy(() => {
      const params = withGrads([[3, 0], [4], [12]], ['float32', 'float64', 'bfloat16']);
      const norm = clipGradNorm_([torch.zeros([2], { device, requiresGrad: true }), ...params], 6.5);
      expect(norm.item()).toBeCloseTo(13, 5);
      params.forEach((param, i) => {
        expectAllClose(param.grad!, [[1.5, 0], [2], [6]][i]!, { rtol: 1e-6 });
      });
      expect(params.map((param) => param.grad!.dtype)).toEqual(['float32', 'float64', 'bfloat16']);
      const [single] = withGrads([[6, 8]]);
      expect(clipGradNorm_(single!, 5).item()).toBe(10);
      expectAllClose(single!.grad!, [3, 4], { rtol: 1e-6 });
      expect(clipGradNorm_([torch.zeros([2])], 1).item()).toBe(0);
      expect(clipGradNorm_([], 1).item()).toBe(0);
    });
  });

  it('throws for a norm that is not finite only when asked to', () => {
    torch.tidy(() => {
      const params = withGrads([[Number.POSITIVE_INFINITY, 1]]);
      expect(() => clipGradNorm_(params, 1, { errorIfNonfinite: true })).toThrow(
        expect.objectContaining({ code: 'ERR_RUNTIME' }),
      );
      expectAllClose(params[0]!.grad!, [Number.POSITIVE_INFINITY, 1]);
      expect(clipGradNorm_(params, 1).item()).toBe(Number.POSITIVE_INFINITY);
    });
  });

  it('by value clamps every element', () => {
    torch.tidy(() => {
      const params = withGrads([[-3, -0.5, 0, 2], [0.25]], ['float64', 'float32']);
      clipGradValue_(params, 0.5);
      expectAllClose(params[0]!.grad!, [-0.5, -0.5, 0, 0.5], { rtol: 0, atol: 0 });
      expectAllClose(params[1]!.grad!, [0.25], { rtol: 0, atol: 0 });
    });
  });

  it('leaves nothing behind', () => {
    torch.tidy(() => {
      const params = withGrads([[3, 4], [12]], ['float64', 'float32']);
      const before = torch.memory().tensors;
      for (let i = 0; i < 10; i++) {
        clipGradNorm_(params, 1).dispose();
        clipGradValue_(params, 1);
      }
      expect(torch.memory().tensors).toBe(before);
    });
  });
});
