import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { refuses, wrong } from '../../test/refusals.js';
import * as torch from '../index.js';
import { native } from '../native/index.js';
import { describeEachDevice, expectAllClose } from '../testing/index.js';
import type { FunctionContext, Gradients } from './index.js';

class Cube extends torch.autograd.Function {
  static forward(context: FunctionContext, x: torch.Tensor): torch.Tensor {
    context.saveForBackward(x);
    return x.pow(3);
  }
  static backward(context: FunctionContext, gradient: torch.Tensor): torch.Tensor {
    const [x] = context.savedTensors;
    return gradient.mul(x!.square()).mul(3);
  }
}

/** Several inputs and outputs, a number among the arguments, an output without gradient, an output that is saved. */
class Mixed extends torch.autograd.Function {
  static needs: readonly boolean[] = [];
  static forward(context: FunctionContext, x: torch.Tensor, factor: number, y: torch.Tensor): torch.Tensor[] {
    const exponential = x.exp();
    const order = y.argsort();
    context.state['factor'] = factor;
    context.saveForBackward(exponential, y);
    context.markNonDifferentiable(order);
    Mixed.needs = context.needsInputGrad;
    return [exponential.mul(factor), y.square(), order];
  }
  static backward(context: FunctionContext, a: torch.Tensor, b: torch.Tensor): Gradients {
    const [exponential, y] = context.savedTensors;
    return [a.mul(exponential!).mul(context.state['factor'] as number), null, b.mul(y!).mul(2)];
  }
}

type Forward = (context: FunctionContext, ...args: torch.Tensor[]) => unknown;
type Backward = (context: FunctionContext, ...gradients: torch.Tensor[]) => unknown;
/** A function of bodies that may do anything. */
function applier(forward: Forward, backward: Backward = (_context, gradient) => gradient) {
  class Custom extends torch.autograd.Function {
    static forward(context: FunctionContext, ...args: torch.Tensor[]): torch.Tensor {
      return forward(context, ...args) as torch.Tensor;
    }
    static backward(context: FunctionContext, ...gradients: torch.Tensor[]): Gradients {
      return backward(context, ...gradients) as Gradients;
    }
  }
  return (...args: unknown[]): torch.Tensor => Custom.apply(...(args as torch.Tensor[]));
}

const leaf = (values: number[], device = 'cpu') =>
  torch.tensor(values, { dtype: 'float64', requiresGrad: true, device });

afterEach(() => {
  expect(native().liveCallbacks()).toBe(0);
  expect(torch.memory().scopes).toBe(0);
  expect(torch.isGradEnabled()).toBe(true);
});

describe.each([false, true])('autograd.Function (pump: %s)', (pump) => {
  beforeAll(() => native().setPumpAlways(pump));
  afterAll(() => native().setPumpAlways(false));

  describeEachDevice('gradients', (device) => {
    it('are those of the formula', () => {
      torch.tidy(() => {
        const x = leaf([1, -2, 0.5], device);
        const y = Cube.apply(x);
        expectAllClose(y, [1, -8, 0.125]);
        expect([y.requiresGrad, y.gradFn]).toEqual([true, 'JavaScriptFunctionBackward']);
        y.sum().backward();
        expectAllClose(x.grad!, [3, 12, 0.75]);
        torch.gradcheck((input) => Cube.apply(input), [x]);
      });
    });

    it('go through several inputs and outputs', () => {
      torch.tidy(() => {
        const [x, y] = [leaf([0.5, 1], device), leaf([3, -1], device)];
        const [a, b, order] = Mixed.apply(x, 2, y) as [torch.Tensor, torch.Tensor, torch.Tensor];
        expect([order.toArray(), order.requiresGrad, Mixed.needs]).toEqual([
          [1n, 0n],
          false,
          [true, false, true],
        ]);
        a.sum().add(b.sum()).backward();
        expectAllClose(x.grad!, [2 * Math.exp(0.5), 2 * Math.E]);
        expectAllClose(y.grad!, [6, -2]);
        // An output without part in the loss counts as zeros.
        x.grad = null;
        y.grad = null;
        Mixed.apply(x, 2, y)[1]!.sum().backward();
        expectAllClose(x.grad!, [0, 0]);
        expectAllClose(y.grad!, [6, -2]);
        torch.gradcheck((p, q) => (Mixed.apply(p, 2, q) as torch.Tensor[]).slice(0, 2), [x, y]);
      });
    });

    it('of second order come from a recorded backward', () => {
      torch.tidy(() => {
        const x = leaf([1.5, -2], device);
        const [first] = torch.grad(Cube.apply(x).sum(), [x], { createGraph: true });
        expectAllClose(first!, [3 * 1.5 ** 2, 12]);
        const [second] = torch.grad(first!.sum(), [x]);
        expectAllClose(second!, [9, -12]);
      });
    });
  });

  it('chains with operators and with itself', () => {
    torch.tidy(() => {
      const x = leaf([1.1]);
      Cube.apply(Cube.apply(x.mul(2)).add(1)).backward();
      // f = (8x³ + 1)³, f' = 3 (8x³ + 1)² 24x²
      expectAllClose(x.grad!, [3 * (8 * 1.1 ** 3 + 1) ** 2 * 24 * 1.21]);
    });
  });

  it('records nothing where nothing is asked for', () => {
    torch.tidy(() => {
      expect(Cube.apply(torch.ones([2])).requiresGrad).toBe(false);
      torch.noGrad(() => expect(Cube.apply(leaf([1])).requiresGrad).toBe(false));
      expect(native().liveCallbacks()).toBe(0);
    });
  });

  it('runs a backward inside of a backward, and one inside of that', () => {
    torch.tidy(() => {
      const nested = (depth: number): ((x: torch.Tensor) => torch.Tensor) =>
        depth === 0
          ? (x) => x.mul(x)
          : applier(
              (context, x) => {
                context.saveForBackward(x);
                return x.mul(x);
              },
              (context, gradient) => {
                const inner = context.savedTensors[0]!.detach().requiresGrad_();
                const [slope] = torch.enableGrad(() => torch.grad(nested(depth - 1)(inner).sum(), [inner]));
                return gradient.mul(slope!);
              },
            );
      for (const depth of [1, 2, 3]) {
        const x = leaf([3, -4]);
        nested(depth)(x).sum().backward();
        expectAllClose(x.grad!, [6, -8]);
      }
    });
  });

  it('gives back the very input when it changes that in place', () => {
    torch.tidy(() => {
      const double = applier(
        (context, x) => {
          torch.noGrad(() => x.mul_(2));
          context.markDirty(x);
          return x;
        },
        (_context, gradient) => gradient.mul(2),
      );
      const x = leaf([1, 2]);
      const middle = x.mul(1);
      const y = double(middle);
      expectAllClose(middle, [2, 4]);
      y.mul(y).sum().backward();
      // Σ (2x)²: 8x
      expectAllClose(x.grad!, [8, 16]);
    });
  });

  it('gives an input through', () => {
    torch.tidy(() => {
      const x = leaf([1, 2]);
      applier(
        (_context, input) => input,
        (_context, gradient) => gradient.mul(5),
      )(x)
        .sum()
        .backward();
      expectAllClose(x.grad!, [5, 5]);
    });
  });

  it('takes none for an argument', () => {
    torch.tidy(() => {
      const [x, y] = [leaf([1]), leaf([2])];
      applier(
        (_context, a, b) => a!.add(b!),
        (_context, gradient) => [gradient, null],
      )(x, y).backward();
      expectAllClose(x.grad!, [1]);
      expect(y.grad).toBeNull();
    });
  });

  it('throws the very errors of forward and backward, and leaves everything usable', () => {
    const errors = [
      new Error('mine'),
      Object.assign(new TypeError('coded'), { code: 'ERR_SHAPE' }),
      'text',
      undefined,
    ];
    for (const error of errors) {
      torch.tidy(() => {
        const fail = (): never => {
          torch.ones([3]);
          throw error;
        };
        const caught = (body: () => unknown): unknown => {
          try {
            body();
          } catch (reason) {
            return reason;
          }
          return 'nothing was thrown';
        };
        const x = leaf([2]);
        expect(caught(() => applier(fail)(x))).toBe(error);
        const y = applier((_context, input) => input.mul(2), fail)(x);
        const before = torch.memory().scopes;
        expect(caught(() => y.backward())).toBe(error);
        expect(torch.memory().scopes).toBe(before);
        expect(torch.isGradEnabled()).toBe(true);
        // From within a nested backward too.
        const outer = applier(
          (_context, input) => input.mul(1),
          () => {
            const inner = leaf([1]);
            torch.enableGrad(() => applier((_c, input) => input.mul(2), fail)(inner)).backward();
            return null;
          },
        );
        expect(caught(() => outer(x).backward())).toBe(error);
        Cube.apply(x).backward();
        expectAllClose(x.grad!, [12]);
      });
    }
  });

  it('goes on after many failures', () => {
    for (let i = 0; i < 300; i++) {
      torch.tidy(() => {
        const y = applier(
          (_context, input) => input.mul(2),
          () => {
            throw new Error(`failure ${i}`);
          },
        )(leaf([1]));
        expect(() => y.backward()).toThrow(`failure ${i}`);
      });
    }
  });

  it('keeps nothing alive after its graph, whether backward ran or not', () => {
    const x = leaf([1, 2]);
    const step = (run: boolean): void =>
      torch.tidy(() => {
        x.grad = null;
        const y = Cube.apply(x).sum();
        expect(native().liveCallbacks()).toBe(1);
        if (run) y.backward();
      });
    step(true);
    const before = torch.memory().tensors;
    for (let i = 0; i < 10; i++) step(i % 2 === 0);
    expect([torch.memory().tensors, native().liveCallbacks()]).toEqual([before, 0]);
    x.dispose();
  });

  it('can be run twice while its graph is kept', () => {
    torch.tidy(() => {
      const x = leaf([2]);
      const y = Cube.apply(x);
      y.backward(null, { retainGraph: true });
      y.backward();
      expectAllClose(x.grad!, [24]);
    });
  });

  const x = () => leaf([1, 2]);
  const dead = () => {
    const tensor = torch.ones([2], { dtype: 'float64' });
    tensor.dispose();
    return tensor;
  };
  const returning = (gradients: () => unknown) => () =>
    applier(
      (_context, input) => input.mul(2),
      gradients,
    )(x())
      .sum()
      .backward();
  refuses([
    ['a forward that gives a number', 'ERR_ARGUMENT', /forward must return.*5/, () => applier(() => 5)(x())],
    ['a forward that gives nothing', 'ERR_ARGUMENT', /undefined/, () => applier(() => undefined)(x())],
    ['a forward that gives an empty array', 'ERR_ARGUMENT', /\[\]/, () => applier(() => [])(x())],
    [
      'a forward that gives a list with a number',
      'ERR_ARGUMENT',
      /5\]/,
      () => applier((_c, a) => [a, 5])(x()),
    ],
    ['a forward that gives a promise', 'ERR_ARGUMENT', /promise/, () => applier(async () => 5)(x())],
    ['a forward that gives a disposed tensor', 'ERR_DISPOSED', /disposed/, () => applier(dead)(x())],
    [
      'saving a number',
      'ERR_ARGUMENT',
      /saveForBackward.*\[5\]/,
      () => applier((c) => c.saveForBackward(wrong(5)))(x()),
    ],
    [
      'saving a disposed tensor',
      'ERR_DISPOSED',
      /disposed/,
      () =>
        applier((c, a) => {
          c.saveForBackward(dead());
          return a.mul(1);
        })(x()),
    ],
    ['marking a number', 'ERR_ARGUMENT', /markDirty/, () => applier((c) => c.markDirty(wrong(5)))(x())],
    [
      'marking what is not returned',
      'ERR_AUTOGRAD',
      /must all be outputs/,
      () =>
        applier((c, a) => {
          c.markDirty(a);
          return a.mul(1);
        })(x().mul(1)),
    ],
    [
      'marking a leaf',
      'ERR_AUTOGRAD',
      /leaf/,
      () =>
        applier((c, a) => {
          c.markDirty(a);
          return a;
        })(x()),
    ],
    [
      'a backward that gives a number',
      'ERR_AUTOGRAD',
      /Custom returned 5 for argument 0/,
      returning(() => 5),
    ],
    ['a backward that gives a promise', 'ERR_ARGUMENT', /promise/, returning(async () => null)],
    ['too many gradients', 'ERR_AUTOGRAD', /2 gradients.*1 argument/, returning(() => [null, null])],
    ['a gradient of another shape', 'ERR_AUTOGRAD', /\[5\].*\[2\]/, returning(() => torch.ones([5]))],
    ['a disposed gradient', 'ERR_DISPOSED', /disposed/, returning(dead)],
    [
      'a second backward',
      'ERR_AUTOGRAD',
      /second time.*retainGraph/s,
      () => {
        const y = Cube.apply(x()).sum();
        y.backward();
        y.backward();
      },
    ],
    [
      'a saved tensor that was written over',
      'ERR_AUTOGRAD',
      /inplace/,
      () => {
        const a = x().mul(1);
        const y = Cube.apply(a);
        a.add_(1);
        y.sum().backward();
      },
    ],
  ]);
});
