import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { refuses, wrong } from '../../test/refusals.js';
import * as torch from '../index.js';
import { native } from '../native/index.js';
import { describeEachDevice, expectIdentical } from '../testing/index.js';

afterEach(() => {
  expect(native().liveCallbacks()).toBe(0);
});

describe.each([false, true])('checkpoint (pump: %s)', (pump) => {
  beforeAll(() => native().setPumpAlways(pump));
  afterAll(() => native().setPumpAlways(false));

  describeEachDevice('gives the same numbers as without', (device) => {
    const weights = (): torch.Tensor[] => {
      torch.manualSeed(1);
      return [8, 8].map((size) => torch.randn([size, 8], { device, requiresGrad: true }));
    };
    /** Two layers with dropout, and gradients of the input and of the weights. */
    function run(checkpointed: boolean, mode: <R>(body: () => R) => R = (body) => body()): torch.Tensor[] {
      const params = weights();
      const input = torch.randn([4, 8], { device, requiresGrad: true });
      torch.manualSeed(7);
      const layer = (w: torch.Tensor) => (x: torch.Tensor) => torch.dropout(x.matmul(w).tanh(), 0.5, true);
      const loss = mode(() => {
        let x = input;
        for (const w of params) x = checkpointed ? torch.checkpoint(layer(w), x) : layer(w)(x);
        return x.float().square().sum();
      });
      const next = torch.rand([3], { device });
      loss.backward();
      const after = torch.rand([3], { device });
      return [loss, input.grad!, ...params.map((w) => w.grad!), next, after];
    }

    it('with dropout, and leaves the random sequence where it was', () => {
      torch.tidy(() => {
        const plain = run(false);
        run(true).forEach((tensor, i) => {
          expectIdentical(tensor, plain[i]!);
        });
      });
    });

    it('under autocast', () => {
      torch.tidy(() => {
        const mode = <R>(body: () => R): R => torch.autocast({ device, dtype: 'bfloat16' }, body);
        const plain = run(false, mode);
        run(true, mode).forEach((tensor, i) => {
          expectIdentical(tensor, plain[i]!);
        });
      });
    });
  });

  it('runs the body again in backward and keeps nothing between', () => {
    const w = torch.randn([4, 4], { requiresGrad: true });
    torch.tidy(() => {
      let runs = 0;
      let inner: torch.Tensor | undefined;
      const y = torch.checkpoint(
        (x: torch.Tensor) => {
          runs++;
          inner = x.matmul(w);
          return inner.exp();
        },
        torch.ones([2, 4]),
      );
      expect([runs, y.requiresGrad]).toEqual([1, true]);
      y.sum().backward();
      expect([runs, inner!.isDisposed]).toEqual([2, true]);
      expect(w.grad!.shape).toEqual([4, 4]);
    });
    w.dispose();
  });

  it('takes several inputs and gives several outputs', () => {
    torch.tidy(() => {
      const [x, y] = [torch.tensor([2], { requiresGrad: true }), torch.tensor([3], { requiresGrad: true })];
      const index = torch.tensor([0], { dtype: 'int64' });
      const body = (a: torch.Tensor, b: torch.Tensor, i: torch.Tensor): torch.Tensor[] => [
        a.mul(b),
        b.indexSelect(0, i),
      ];
      const [product, picked] = torch.checkpoint(body, x, y, index) as [torch.Tensor, torch.Tensor];
      product.add(picked).backward();
      expect([x.grad!.item(), y.grad!.item()]).toEqual([3, 3]);
    });
  });

  it('nests', () => {
    torch.tidy(() => {
      const x = torch.tensor([1.5], { dtype: 'float64', requiresGrad: true });
      const square = (a: torch.Tensor): torch.Tensor => a.mul(a);
      const twice = (a: torch.Tensor): torch.Tensor => torch.checkpoint(square, torch.checkpoint(square, a));
      torch.checkpoint(twice, x).backward();
      expect(x.grad!.item()).toBe(4 * 1.5 ** 3);
    });
  });

  it('records nothing without gradients', () => {
    torch.tidy(() => {
      const y = torch.noGrad(() => torch.checkpoint((x: torch.Tensor) => x.mul(2), torch.ones([1])));
      expect([y.requiresGrad, y.item(), native().liveCallbacks()]).toEqual([false, 2, 0]);
    });
  });

  it('throws what the body throws in either run', () => {
    torch.tidy(() => {
      const x = torch.ones([1], { requiresGrad: true });
      const error = new Error('mine');
      let runs = 0;
      const failing = (at: number) => (input: torch.Tensor) => {
        if (++runs === at) throw error;
        return input.mul(2);
      };
      expect(() => torch.checkpoint(failing(1), x)).toThrow(error);
      runs = 0;
      const y = torch.checkpoint(failing(2), x);
      torch.manualSeed(3);
      const expected = torch.rand([4]).toArray();
      torch.manualSeed(3);
      expect(() => y.backward()).toThrow(error);
      // The random sequence goes on as if nothing had happened.
      expect(torch.rand([4]).toArray()).toEqual(expected);
    });
  });

  const x = () => torch.ones([2], { requiresGrad: true });
  const square = (input: torch.Tensor) => input.mul(input);
  refuses([
    ['what is no function', 'ERR_ARGUMENT', /'body'.*5/, () => torch.checkpoint(wrong(5), x())],
    [
      'inputs that are no tensors',
      'ERR_ARGUMENT',
      /'inputs'.*\[5\]/,
      () => torch.checkpoint(square, wrong(5)),
    ],
    [
      'results that are no tensors',
      'ERR_ARGUMENT',
      /forward must return/,
      () =>
        torch.checkpoint(
          wrong(() => 5),
          x(),
        ),
    ],
    [
      'promises',
      'ERR_ARGUMENT',
      /promise/,
      () =>
        torch.checkpoint(
          wrong(async () => 5),
          x(),
        ),
    ],
    [
      'a second backward',
      'ERR_AUTOGRAD',
      /second time/,
      () => {
        const y = torch.checkpoint(square, x()).sum();
        y.backward();
        y.backward();
      },
    ],
    [
      'chosen gradients',
      'ERR_AUTOGRAD',
      /checkpoint.*torch.grad/,
      () => {
        const input = x();
        torch.grad(torch.checkpoint(square, input).sum(), [input]);
      },
    ],
    [
      'a recorded backward',
      'ERR_AUTOGRAD',
      /checkpoint.*createGraph/,
      () => torch.checkpoint(square, x()).sum().backward(null, { createGraph: true }),
    ],
  ]);
});
