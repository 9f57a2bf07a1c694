import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { refuses, wrong } from '../../test/refusals.js';
import * as torch from '../index.js';
import { native } from '../native/index.js';
import { describeEachDevice, expectAllClose } from '../testing/index.js';

const leaf = (values: number[], device = 'cpu') =>
  torch.tensor(values, { requiresGrad: true, dtype: 'float64', device });

describeEachDevice('backward', (device) => {
  it('gives the gradients of a formula', () => {
    torch.tidy(() => {
      // f = Σ x²y + sin x, ∂f/∂x = 2xy + cos x, ∂f/∂y = x²
      const [xs, ys] = [
        [0.5, -1, 2],
        [3, 0.25, -2],
      ];
      const [x, y] = [leaf(xs, device), leaf(ys, device)];
      x.square().mul(y).add(x.sin()).sum().backward();
      expectAllClose(
        x.grad!,
        xs.map((a, i) => 2 * a * ys[i]! + Math.cos(a)),
      );
      expectAllClose(
        y.grad!,
        xs.map((a) => a * a),
      );
    });
  });

  it('sums gradients over what was broadcast, and over several uses', () => {
    torch.tidy(() => {
      const row = leaf([1, 2], device);
      row.expand([3, 2]).mul(2).sum().backward();
      expectAllClose(row.grad!, [6, 6]);
      row.mul(row).sum().backward();
      expectAllClose(row.grad!, [8, 10]);
    });
  });

  it('takes the gradients of outputs with many elements', () => {
    torch.tidy(() => {
      const x = leaf([1, 2, 3], device);
      x.mul(x).backward(torch.tensor([1, 0, -1], { dtype: 'float64', device }));
      expectAllClose(x.grad!, [2, 0, -6]);
    });
  });

  it('goes twice over a graph that is kept', () => {
    torch.tidy(() => {
      const x = leaf([3], device);
      const y = x.mul(x);
      y.backward(null, { retainGraph: true });
      y.backward();
      expectAllClose(x.grad!, [12]);
    });
  });

  it('fills only the chosen inputs', () => {
    torch.tidy(() => {
      const [x, y] = [leaf([2], device), leaf([5], device)];
      torch.autograd.backward([x.mul(y)], undefined, { inputs: [y] });
      expect(x.grad).toBeNull();
      expectAllClose(y.grad!, [2]);
    });
  });

  it('of several outputs adds up', () => {
    torch.tidy(() => {
      const x = leaf([2], device);
      torch.autograd.backward([x.mul(3), x.mul(x)], [null, torch.tensor([10], { dtype: 'float64', device })]);
      expectAllClose(x.grad!, [3 + 10 * 4]);
    });
  });

  it('reaches what was written in place', () => {
    torch.tidy(() => {
      const x = leaf([1, 2], device);
      const y = x.mul(1);
      y.select(0, 0).mul_(10);
      y.sum().backward();
      expectAllClose(x.grad!, [10, 1]);
    });
  });

  it('needs nothing of intermediate tensors that were disposed', () => {
    torch.tidy(() => {
      const x = leaf([2], device);
      const y = x.mul(x);
      const z = y.exp();
      y.dispose();
      z.backward();
      // d exp(x²) = 2x exp(x²)
      expectAllClose(x.grad!, [4 * Math.exp(4)]);
    });
  });

  it('leaves nothing behind', () => {
    const x = leaf([1, 2, 3], device);
    const step = () =>
      torch.tidy(() => {
        x.grad = null;
        x.mul(x).exp().sum().backward();
        torch.grad(x.sin().sum(), [x]);
      });
    step();
    const before = torch.memory().tensors;
    for (let i = 0; i < 10; i++) step();
    expect(torch.memory().tensors).toBe(before);
    x.dispose();
  });
});

describeEachDevice('grad', (device) => {
  it('gives gradients without touching any grad', () => {
    torch.tidy(() => {
      const [x, y] = [leaf([2, 3], device), leaf([4, 5], device)];
      const [dx, dy] = torch.grad(x.mul(y).sum(), [x, y]);
      expectAllClose(dx!, [4, 5]);
      expectAllClose(dy!, [2, 3]);
      expect([x.grad, y.grad]).toEqual([null, null]);
      const middle = x.mul(2);
      const [dm] = torch.grad([middle.mul(middle)], [middle], {
        gradOutputs: [torch.ones([2], { dtype: 'float64', device })],
      });
      expectAllClose(dm!, [8, 12]);
    });
  });

  it('gives higher derivatives', () => {
    torch.tidy(() => {
      // f = x⁴: 4x³, 12x², 24x
      const x = leaf([1.5], device);
      let y = x.pow(4);
      const derivatives: number[] = [];
      for (let order = 0; order < 3; order++) {
        [y] = torch.grad(y, x, { createGraph: true }) as [torch.Tensor];
        derivatives.push(y.item());
      }
      expectAllClose(torch.tensor(derivatives), [4 * 1.5 ** 3, 12 * 1.5 ** 2, 24 * 1.5]);
    });
  });

  it('gives null for an input without part in it, when that is allowed', () => {
    torch.tidy(() => {
      const [x, unused] = [leaf([1], device), leaf([1], device)];
      const [dx, none] = torch.grad(x.mul(2), [x, unused], { allowUnused: true });
      expectAllClose(dx!, [2]);
      expect(none).toBeNull();
    });
  });
});

describe.each([false, true])('errors of backward (pump: %s)', (pump) => {
  let hook: { remove(): void };
  const hooked = torch.ones([1], { requiresGrad: true });
  beforeAll(() => {
    native().setPumpAlways(pump);
    // The pump runs while any callback lives.
    hook = hooked.registerHook(() => {});
  });
  afterAll(() => {
    hook.remove();
    hooked.dispose();
    native().setPumpAlways(false);
  });
  const x = () => torch.ones([2], { requiresGrad: true });
  const plain = () => torch.ones([2]);
  const dead = () => {
    const tensor = x();
    tensor.dispose();
    return tensor;
  };
  refuses([
    ['a tensor without graph', 'ERR_AUTOGRAD', /does not require grad/, () => plain().sum().backward()],
    ['many elements without a gradient', 'ERR_AUTOGRAD', /scalar outputs/, () => x().mul(2).backward()],
    [
      'a second backward',
      'ERR_AUTOGRAD',
      /second time.*retainGraph: true/s,
      () => {
        const y = x().mul(x()).sum();
        y.backward();
        y.backward();
      },
    ],
    [
      'a gradient of another shape',
      'ERR_AUTOGRAD',
      /\[3\].*\[2\]/,
      () =>
        x()
          .mul(2)
          .backward(torch.ones([3])),
    ],
    [
      'a gradient that is no tensor',
      'ERR_ARGUMENT',
      /'gradOutputs'.*'abc'/,
      () => x().sum().backward(wrong('abc')),
    ],
    ['a disposed gradient', 'ERR_DISPOSED', /backward/, () => x().mul(2).backward(dead())],
    ['a disposed output', 'ERR_DISPOSED', /backward/, () => dead().backward()],
    [
      'an unknown option',
      'ERR_ARGUMENT',
      /'retain'/,
      () =>
        x()
          .sum()
          .backward(null, wrong({ retain: true })),
    ],
    ['null for options', 'ERR_ARGUMENT', /'options'/, () => x().sum().backward(null, wrong(null))],
    [
      'outputs that are no tensors',
      'ERR_ARGUMENT',
      /'outputs'.*\[5\]/,
      () => torch.autograd.backward(wrong([5])),
    ],
    ['no outputs', 'ERR_ARGUMENT', /'outputs' is empty/, () => torch.autograd.backward([])],
    [
      'more gradients than outputs',
      'ERR_AUTOGRAD',
      /1 tensors and 2/,
      () => torch.autograd.backward([x().mul(2)], [plain(), plain()]),
    ],
    [
      'inputs that are no tensors',
      'ERR_ARGUMENT',
      /'inputs'/,
      () => torch.autograd.backward([x().sum()], undefined, { inputs: wrong([null]) }),
    ],
    [
      'no inputs',
      'ERR_ARGUMENT',
      /'inputs' is empty/,
      () => torch.autograd.backward([x().sum()], undefined, { inputs: [] }),
    ],
    [
      'an input without gradients',
      'ERR_AUTOGRAD',
      /requiresGrad/,
      () => torch.autograd.backward([x().sum()], undefined, { inputs: [plain()] }),
    ],
    ['grad of an unused input', 'ERR_AUTOGRAD', /allowUnused: true/, () => torch.grad(x().sum(), [x()])],
    [
      'grad by a tensor without gradients',
      'ERR_AUTOGRAD',
      /does not require grad/,
      () => torch.grad(x().sum(), [plain()]),
    ],
    ['grad of nothing', 'ERR_ARGUMENT', /'outputs'.*got 5/, () => torch.grad(wrong(5), [x()])],
    ['grad by nothing', 'ERR_ARGUMENT', /'inputs'.*null/, () => torch.grad(x().sum(), wrong(null))],
    ['writing over a leaf', 'ERR_AUTOGRAD', /leaf/, () => x().add_(1)],
    ['writing over a part of a leaf', 'ERR_AUTOGRAD', /view of a leaf/, () => x().select(0, 0).add_(1)],
    [
      'a saved tensor that was written over',
      'ERR_AUTOGRAD',
      /modified by an inplace operation/,
      () => {
        const a = x().mul(1);
        const y = a.mul(a);
        a.add_(1);
        y.sum().backward();
      },
    ],
  ]);
});
