import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { refuses, wrong } from '../../test/refusals.js';
import * as torch from '../index.js';
import { native } from '../native/index.js';
import { expectAllClose } from '../testing/index.js';

const leaf = (values: number[]) => torch.tensor(values, { requiresGrad: true });

afterEach(() => {
  expect(native().liveCallbacks()).toBe(0);
  expect(torch.memory().scopes).toBe(0);
});

describe.each([false, true])('a hook (pump: %s)', (pump) => {
  beforeAll(() => native().setPumpAlways(pump));
  afterAll(() => native().setPumpAlways(false));

  it('sees the gradient and may replace it, on leaves and in between', () => {
    torch.tidy(() => {
      const x = leaf([1, 2]);
      const y = x.mul(3);
      const seen: unknown[] = [];
      y.registerHook((gradient) => {
        seen.push(gradient.toArray());
        return gradient.mul(10);
      });
      x.registerHook((gradient) => {
        seen.push(gradient.toArray());
      });
      y.sum().backward();
      expect(seen).toEqual([
        [1, 1],
        [30, 30],
      ]);
      expectAllClose(x.grad!, [30, 30]);
    });
  });

  it('runs in the order of registration until it is removed', () => {
    torch.tidy(() => {
      const x = leaf([1]);
      const first = x.registerHook((gradient) => gradient.add(1));
      x.registerHook((gradient) => gradient.mul(2));
      x.mul(1).backward();
      expectAllClose(x.grad!, [4]);
      first.remove();
      first.remove();
      x.grad = null;
      x.mul(1).backward();
      expectAllClose(x.grad!, [2]);
    });
  });

  it('can be removed while it runs, and after its tensor is gone', () => {
    torch.tidy(() => {
      const x = leaf([1]);
      let calls = 0;
      const once = x.registerHook(() => {
        calls++;
        once.remove();
      });
      x.mul(2).backward();
      x.mul(2).backward();
      expect(calls).toBe(1);
      const y = leaf([1]);
      const middle = y.mul(2);
      const late = middle.registerHook(() => {
        calls++;
      });
      const z = middle.sum();
      middle.dispose();
      late.remove();
      z.backward();
      expect(calls).toBe(1);
    });
  });

  it('may run a backward of its own', () => {
    torch.tidy(() => {
      const [x, other] = [leaf([2]), leaf([3])];
      x.registerHook((gradient) => {
        const [inner] = torch.enableGrad(() => torch.grad(other.mul(other), [other]));
        return gradient.mul(inner!);
      });
      x.mul(5).backward();
      expectAllClose(x.grad!, [5 * 6]);
    });
  });

  it('throws out of backward what it throws, and leaves everything usable', () => {
    const thrown = [
      new Error('mine'),
      Object.assign(new Error('coded'), { code: 'ERR_SHAPE' }),
      'text',
      5,
      null,
      undefined,
      { any: 1 },
    ];
    for (const error of thrown) {
      torch.tidy(() => {
        const x = leaf([1]);
        const hook = x.registerHook(() => {
          torch.zeros([1]);
          throw error;
        });
        const before = torch.memory();
        let caught: unknown = 'nothing';
        try {
          x.mul(2).backward();
        } catch (reason) {
          caught = reason;
        }
        expect(caught).toBe(error);
        expect(torch.memory().scopes).toBe(before.scopes);
        hook.remove();
        x.mul(2).backward();
        expectAllClose(x.grad!, [2]);
      });
    }
  });

  it('keeps its tensors in a scope of its own', () => {
    torch.tidy(() => {
      const x = leaf([1]);
      let inner: torch.Tensor | undefined;
      let gradient: torch.Tensor | undefined;
      x.registerHook((given) => {
        gradient = given;
        inner = given.mul(2);
      });
      x.mul(2).backward();
      expect([inner!.isDisposed, gradient!.isDisposed]).toEqual([true, true]);
    });
  });

  it('may run tidy, and may not open an asynchronous scope', () => {
    torch.tidy(() => {
      const x = leaf([1]);
      x.registerHook((gradient) => torch.tidy(() => gradient.mul(2)));
      let refused: unknown;
      x.registerHook(() => {
        try {
          torch.scope();
        } catch (error) {
          refused = error;
        }
      });
      x.mul(1).backward();
      expectAllClose(x.grad!, [2]);
      expect(refused).toMatchObject({ code: 'ERR_ARGUMENT' });
    });
  });

  it('is freed with its graph or its tensor', () => {
    const x = leaf([1]);
    torch.tidy(() => {
      for (let i = 0; i < 5; i++) x.mul(2).registerHook(() => {});
      x.registerHook(() => {});
      expect(native().liveCallbacks()).toBe(6);
    });
    expect(native().liveCallbacks()).toBe(1);
    x.dispose();
  });

  const x = () => leaf([1, 2]);
  const hooked = (hook: () => unknown) => () => {
    const tensor = x();
    tensor.registerHook(wrong(hook));
    tensor.sum().backward();
  };
  refuses([
    ['what is no function', 'ERR_ARGUMENT', /'hook'.*function, got 5/, () => x().registerHook(wrong(5))],
    [
      'a tensor without gradients',
      'ERR_AUTOGRAD',
      /doesn't require gradient/,
      () => torch.zeros([1]).registerHook(() => {}),
    ],
    ['a number as gradient', 'ERR_AUTOGRAD', /tensor or nothing.*5/, hooked(() => 5)],
    ['a promise as gradient', 'ERR_AUTOGRAD', /Promise/, hooked(async () => {})],
    ['a gradient of another shape', 'ERR_AUTOGRAD', /size/, hooked(() => torch.ones([5]))],
    [
      'a gradient of another dtype',
      'ERR_AUTOGRAD',
      /type/,
      hooked(() => torch.ones([2], { dtype: 'float64' })),
    ],
    [
      'a disposed gradient',
      'ERR_DISPOSED',
      /disposed/,
      hooked(() => {
        const tensor = torch.ones([2]);
        tensor.dispose();
        return tensor;
      }),
    ],
  ]);
});
