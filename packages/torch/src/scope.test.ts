import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { refuses, wrong } from '../test/refusals.js';
import * as torch from './index.js';
import { native } from './native/index.js';
import { collectGarbage } from './testing/index.js';

const live = (): number => torch.memory().tensors;
const make = (value = 1): torch.Tensor => torch.full([2], value);

let before = 0;
beforeEach(() => {
  before = live();
});
afterEach(() => {
  expect(torch.memory().scopes).toBe(0);
  expect(native().activeScope[0]).toBe(0);
});

describe('tidy', () => {
  it('frees what was born inside, down to views and intermediate results', () => {
    torch.tidy(() => {
      const x = make();
      x.add(1).mul(2).reshape([1, 2]).t();
      expect(live()).toBe(before + 5);
    });
    expect(live()).toBe(before);
  });

  it('leaves what it returns: tensors, and arrays, maps, sets and plain objects of them', () => {
    const one = torch.tidy(() => make(3).add(1));
    const { list, map, set, none } = torch.tidy(() => ({
      list: [make(1), [make(2)], 'text', null] as const,
      map: new Map([['a', make(3)]]),
      set: new Set([make(4)]),
      none: undefined,
    }));
    expect(one.toArray()).toEqual([4, 4]);
    const all = [list[0], list[1][0]!, map.get('a')!, [...set][0]!];
    expect(all.map((tensor) => tensor.toArray())).toEqual([
      [1, 1],
      [2, 2],
      [3, 3],
      [4, 4],
    ]);
    expect(none).toBeUndefined();
    expect(live()).toBe(before + 5);
    for (const tensor of [one, ...all]) tensor.dispose();
    expect(live()).toBe(before);
  });

  it('hands on from scope to scope', () => {
    torch.tidy(() => {
      const inner = torch.tidy(() => torch.tidy(() => make(7)));
      expect(inner.toArray()).toEqual([7, 7]);
      expect(live()).toBe(before + 1);
    });
    expect(live()).toBe(before);
  });

  it('does not take what was born outside', () => {
    const outer = make();
    torch.tidy(() => outer);
    torch.tidy(() => {
      const born = make();
      torch.tidy(() => born);
      expect(born.isDisposed).toBe(false);
    });
    expect(outer.isDisposed).toBe(false);
    outer.dispose();
  });

  it('frees when the body throws, and throws the very same error', () => {
    const error = new Error('mine');
    expect(() =>
      torch.tidy(() => {
        make();
        torch.tidy(() => {
          make();
          throw error;
        });
      }),
    ).toThrow(error);
    expect(live()).toBe(before);
  });

  it('leaves the graph what it needs', () => {
    const x = torch.ones([2], { requiresGrad: true });
    const y = torch.tidy(() => x.mul(x).exp().sum());
    y.backward();
    const gradient = x.grad!;
    // d/dx exp(x²) = 2x exp(x²)
    expect(gradient.toArray()).toEqual([expect.closeTo(2 * Math.E, 5), expect.closeTo(2 * Math.E, 5)]);
    for (const tensor of [x, y, gradient]) tensor.dispose();
    expect(live()).toBe(before);
  });

  it('walks through what contains itself', () => {
    const ring: Record<string, unknown> = { tensor: make() };
    ring['again'] = [ring];
    torch.tidy(() => ring);
    (ring['tensor'] as torch.Tensor).dispose();
    const born = torch.tidy(() => {
      const inner: Record<string, unknown> = { tensor: make() };
      inner['again'] = inner;
      return inner;
    });
    expect((born['tensor'] as torch.Tensor).isDisposed).toBe(false);
    (born['tensor'] as torch.Tensor).dispose();
  });

  it('keeps the count and the memory flat over many steps', () => {
    const step = (): number =>
      torch.tidy(() =>
        torch
          .randn([64, 64])
          .matmul(torch.randn([64, 64]))
          .sum()
          .item(),
      );
    step();
    const count = live();
    for (let i = 0; i < 10; i++) step();
    expect(live()).toBe(count);
    const start = process.memoryUsage().rss;
    for (let i = 0; i < 200; i++) {
      torch.tidy(() => {
        torch
          .ones([1 << 18])
          .add(1)
          .mul(2);
      });
    }
    // Without scopes it would be 600 MiB.
    expect(process.memoryUsage().rss - start).toBeLessThan(100 * 2 ** 20);
  });
});

describe('keep', () => {
  it('takes tensors out of every scope', () => {
    const kept: torch.Tensor[] = [];
    torch.tidy(() => {
      torch.tidy(() => {
        kept.push(torch.keep(make(5)));
        torch.keep({ list: [kept[0]!] });
      });
    });
    expect(kept[0]!.toArray()).toEqual([5, 5]);
    expect(live()).toBe(before + 1);
    kept[0]!.dispose();
  });

  it('gives back what it was given', () => {
    const list = [make()];
    expect(torch.keep(list)).toBe(list);
    expect(torch.keep(5)).toBe(5);
    list[0]!.dispose();
  });
});

describe('scope', () => {
  it('frees at its end, except what it keeps', () => {
    const scope = torch.scope();
    expect(torch.memory().scopes).toBe(1);
    make();
    const kept = scope.keep([make(2)])[0]!;
    expect(live()).toBe(before + 2);
    scope.dispose();
    scope.dispose();
    expect([kept.isDisposed, scope.isClosed, live()]).toEqual([false, true, before + 1]);
    kept.dispose();
  });

  it('keeps for the scope around it', () => {
    const outer = torch.scope();
    const inner = torch.scope();
    const kept = inner.keep(make());
    inner[Symbol.dispose]();
    expect(kept.isDisposed).toBe(false);
    outer.dispose();
    expect([kept.isDisposed, live()]).toEqual([true, before]);
  });

  it('survives await', async () => {
    const scope = torch.scope();
    const early = make();
    await sleep(1);
    const late = make();
    await Promise.resolve();
    expect([early.isDisposed, late.isDisposed, live()]).toEqual([false, false, before + 2]);
    scope.dispose();
    expect(live()).toBe(before);
  });

  it('holds tidy, and tidy holds tidy, across await', async () => {
    const scope = torch.scope();
    torch.tidy(() => make());
    await sleep(1);
    const returned = torch.tidy(() => make(9));
    expect(live()).toBe(before + 2);
    scope.dispose();
    expect([returned.isDisposed, live()]).toEqual([true, before]);
  });

  it('may end before the one that it lies in, or after it', () => {
    const first = torch.scope();
    make();
    const second = torch.scope();
    make();
    first.dispose();
    expect(live()).toBe(before + 1);
    second.dispose();
    expect(live()).toBe(before);
    make().dispose();
  });

  it('may end inside of tidy', () => {
    const scope = torch.scope();
    make();
    torch.tidy(() => {
      make();
      scope.dispose();
      make();
      expect(live()).toBe(before + 2);
    });
    expect(live()).toBe(before);
    const inner = torch.scope();
    const kept = torch.tidy(() => {
      inner.dispose();
      return make();
    });
    expect(kept.isDisposed).toBe(false);
    kept.dispose();
  });

  it('of a caller holds what an awaited function makes', async () => {
    const scope = torch.scope();
    const helper = async (): Promise<torch.Tensor> => {
      await sleep(1);
      return make(4);
    };
    const result = await helper();
    expect(result.toArray()).toEqual([4, 4]);
    scope.dispose();
    expect([result.isDisposed, live()]).toEqual([true, before]);
  });

  it('does not reach callbacks that run later without it', async () => {
    const scope = torch.scope();
    let later: torch.Tensor | undefined;
    const done = new Promise<void>((resolve) => {
      setTimeout(() => {
        later = make();
        resolve();
      }, 5);
    });
    scope.dispose();
    await done;
    // Its scope had ended, so the one around that owns it: none.
    expect(later!.isDisposed).toBe(false);
    later!.dispose();
  });
});

describe('scoped', () => {
  it('keeps the scopes of functions apart that run at the same time', async () => {
    const worker = (id: number) =>
      torch.scoped(async () => {
        let sum = make(0);
        for (let i = 0; i < 20; i++) {
          await sleep(Math.floor((id * 7 + i * 3) % 3));
          sum = sum.add(id);
          torch.tidy(() => make().mul(3));
        }
        return sum;
      });
    const results = await Promise.all([1, 2, 3, 4].map(worker));
    expect(results.map((tensor) => tensor.toArray())).toEqual([1, 2, 3, 4].map((id) => [20 * id, 20 * id]));
    expect(live()).toBe(before + 4);
    for (const tensor of results) tensor.dispose();
  });

  it('does not reach into the code that started it', async () => {
    const pending = torch.scoped(async () => {
      await sleep(5);
    });
    const mine = make();
    const also = torch.tidy(() => make());
    await pending;
    expect([mine.isDisposed, also.isDisposed]).toEqual([false, false]);
    mine.dispose();
    also.dispose();
  });

  it('frees one while others are at work', async () => {
    let held: torch.Tensor | undefined;
    const slow = torch.scoped(async () => {
      held = make(3);
      await sleep(20);
      expect(held.toArray()).toEqual([3, 3]);
      return held.add(1);
    });
    await torch.scoped(async () => {
      make();
      await sleep(2);
      make();
    });
    expect(held!.isDisposed).toBe(false);
    const result = await slow;
    expect([held!.isDisposed, result.toArray()]).toEqual([true, [4, 4]]);
    result.dispose();
  });

  it('leaves the caller its own scope', async () => {
    const outer = torch.scope();
    const pending = torch.scoped(async () => {
      await sleep(2);
      make();
    });
    const mine = make();
    await pending;
    expect(mine.isDisposed).toBe(false);
    const also = make();
    outer.dispose();
    expect([mine.isDisposed, also.isDisposed, live()]).toEqual([true, true, before]);
  });

  it('hands its result to the scope around it, and nests', async () => {
    const outer = torch.scope();
    const result = await torch.scoped(async () => ({ x: await torch.scoped(async () => [make(8)]) }));
    expect(result.x[0]!.toArray()).toEqual([8, 8]);
    outer.dispose();
    expect(result.x[0]!.isDisposed).toBe(true);
  });

  it('frees when the function fails, and fails with the very same error', async () => {
    const error = new Error('mine');
    const failing = torch.scoped(async () => {
      make();
      await sleep(1);
      throw error;
    });
    await expect(failing).rejects.toBe(error);
    expect(live()).toBe(before);
  });

  it('lets a scope keep by hand', async () => {
    let kept: torch.Tensor | undefined;
    await torch.scoped(async (scope) => {
      await sleep(1);
      kept = scope.keep(make(6));
      make();
    });
    expect([kept!.toArray(), live()]).toEqual([[6, 6], before + 1]);
    kept!.dispose();
  });
});

describe('the counters', () => {
  it('tell live tensors, all tensors and open scopes', () => {
    const start = torch.memory();
    const x = make();
    const scope = torch.scope();
    make();
    expect(torch.memory()).toEqual({ tensors: start.tensors + 2, created: start.created + 2, scopes: 1 });
    scope.dispose();
    x.dispose();
    expect(torch.memory()).toEqual({ tensors: start.tensors, created: start.created + 2, scopes: 0 });
  });
});

describe('garbage collection', () => {
  it('frees forgotten tensors that no scope owns', async () => {
    await collectGarbage();
    const start = live();
    (() => {
      for (let i = 0; i < 50; i++) make();
      torch.tidy(() => torch.keep(make()));
      torch.tidy(() => make());
    })();
    await collectGarbage();
    expect(live()).toBeLessThanOrEqual(start);
  });

  it('does not free what somebody holds', async () => {
    const held = make(2);
    const inside = torch.tidy(() => make(3));
    await collectGarbage();
    expect([held.toArray(), inside.toArray()]).toEqual([
      [2, 2],
      [3, 3],
    ]);
    held.dispose();
    inside.dispose();
  });

  it('is told what tensors weigh, so that an asynchronous loop without scopes stays small', async () => {
    const megabyte = 1 << 18;
    const x = torch.ones([megabyte]);
    let largest = 0;
    const start = process.memoryUsage().rss;
    for (let i = 0; i < 1000; i++) {
      x.add(1).mul(2);
      if (i % 10 === 0) {
        await new Promise((resolve) => setImmediate(resolve));
        largest = Math.max(largest, process.memoryUsage().rss);
      }
    }
    x.dispose();
    await collectGarbage();
    // 2000 MiB were made.
    expect(largest - start).toBeLessThan(500 * 2 ** 20);
  });
});

describe('scopes refuse', () => {
  refuses([
    ['a promise', 'ERR_ARGUMENT', /tidy\(\).*promise.*scoped/, () => torch.tidy(async () => make())],
    [
      'a promise of a failure',
      'ERR_ARGUMENT',
      /promise/,
      () => torch.tidy(() => Promise.reject(new Error('lost'))),
    ],
    [
      'a thenable',
      'ERR_ARGUMENT',
      /promise/,
      // biome-ignore lint/suspicious/noThenProperty: what is tested
      () => torch.tidy(() => ({ then: (done: () => void) => done() })),
    ],
    ['what is no function', 'ERR_ARGUMENT', /tidy.*function, got 5/, () => torch.tidy(wrong(5))],
    [
      'a scope inside of tidy',
      'ERR_ARGUMENT',
      /scope\(\) inside tidy/,
      () => torch.tidy(() => torch.scope()),
    ],
    [
      'to keep the disposed',
      'ERR_DISPOSED',
      /keep/,
      () => {
        const x = make();
        x.dispose();
        torch.keep(x);
      },
    ],
  ]);

  it('to keep after their end', () => {
    const scope = torch.scope();
    scope.dispose();
    expect(() => scope.keep(make())).toThrow(expect.objectContaining({ code: 'ERR_ARGUMENT' }));
  });

  it('asynchronous functions inside of tidy', async () => {
    let pending: Promise<unknown> | undefined;
    torch.tidy(() => {
      pending = torch.scoped(async () => make());
      pending.catch(() => {});
      make();
    });
    await expect(pending).rejects.toMatchObject({ code: 'ERR_ARGUMENT', op: 'scoped' });
    await expect(torch.scoped(wrong(5))).rejects.toMatchObject({ code: 'ERR_ARGUMENT' });
  });
});
