import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import type { FmoeErrorCode, Index, Tensor } from '../index.js';
import * as torch from '../index.js';
import { describeEachDevice, expectAllClose } from '../testing/index.js';

const { slice } = torch;

type StoredIndex =
  | number
  | null
  | '...'
  | { slice: (number | null)[] }
  | { tensor: number | boolean | (number | boolean)[]; dtype: torch.DType };

interface IndexingCase {
  shape: number[];
  indices: StoredIndex[];
  resultShape: number[];
  picked: number[];
  /** After writing -7. */
  written: number[];
  /** After writing -1, -2, ... */
  assigned: number[] | null;
}

const { cases } = JSON.parse(
  readFileSync(new URL('../../test/fixtures/indexing.json', import.meta.url), 'utf8'),
) as { cases: IndexingCase[] };

const count = (shape: readonly number[]): number => shape.reduce((product, size) => product * size, 1);

function toIndex(stored: StoredIndex, device: string): Index {
  if (typeof stored !== 'object' || stored === null) return stored;
  if ('slice' in stored) {
    const [start, stop, step] = stored.slice;
    return slice(start ?? undefined, stop ?? undefined, step ?? undefined);
  }
  return torch.tensor(stored.tensor, { dtype: stored.dtype, device });
}

const title = ({ shape, indices }: IndexingCase): string => `[${shape}] at ${JSON.stringify(indices)}`;

describeEachDevice('indexing equals PyTorch', (device) => {
  const range = (shape: readonly number[]): Tensor =>
    torch.arange(count(shape), { dtype: 'int64', device }).reshape(shape);
  const flat = (x: Tensor): number[] => Array.from(x.cpu().contiguous().data(), Number);

  it.each(cases.map((fixture) => [title(fixture), fixture] as const))('%s', (_title, fixture) => {
    const { shape, resultShape, picked, written, assigned } = fixture;
    torch.tidy(() => {
      const x = range(shape);
      const indices = fixture.indices.map((index) => toIndex(index, device));
      const before = torch.memory().tensors;
      const result = x.at(...indices);
      expect(torch.memory().tensors).toBe(before + 1);
      expect(result.shape).toEqual(resultShape);
      expect(flat(result)).toEqual(picked);

      const target = x.clone();
      target.set(indices, -7);
      expect(flat(target)).toEqual(written);
      if (assigned) {
        const values = range(resultShape).add(1).neg();
        target.copy_(x);
        target.set(indices, values);
        expect(flat(target)).toEqual(assigned);
        // Leading dimensions of size 1 are ignored.
        target.copy_(x);
        target.set(indices, values.reshape([1, 1, ...resultShape]));
        expect(flat(target)).toEqual(assigned);
      }
    });
  });
});

/** Nested arrays of the numbers 0, 1, 2, ... */
type Nested = number | Nested[];
function nestedRange(shape: readonly number[], first = 0): Nested {
  const [size, ...rest] = shape;
  if (size === undefined) return first;
  return Array.from({ length: size }, (_, i) => nestedRange(rest, first + i * count(rest)));
}

/** Python's indexing by its definition, for indices of which at most one gathers. */
function pick(value: Nested, indices: readonly Index[]): Nested {
  const [index, ...rest] = indices;
  if (index === undefined) return value;
  if (index === null) return [pick(value, rest)];
  const items = value as Nested[];
  if (typeof index === 'number') return pick(items.at(index)!, rest);
  if (Array.isArray(index)) return index.map((i: number) => pick(items.at(i)!, rest));
  const { start = 0, stop = items.length, step = 1 } = index as torch.Slice;
  const clamp = (i: number): number => Math.max(0, Math.min(items.length, i < 0 ? i + items.length : i));
  const kept: Nested[] = [];
  for (let i = clamp(start); i < clamp(stop); i += step) kept.push(pick(items[i]!, rest));
  return kept;
}

describe('indexing equals its definition over nested arrays', () => {
  it('for a thousand random indices', () => {
    let seed = 3;
    const random = (low: number, high: number): number => {
      seed = (seed * 1103515245 + 12345) % 2 ** 31;
      return low + Math.floor((seed / 2 ** 31) * (high - low + 1));
    };
    for (let round = 0; round < 1000; round++) {
      const shape = Array.from({ length: random(1, 4) }, () => random(1, 4));
      const indices: Index[] = [];
      let gathers = false;
      for (const size of shape.slice(0, random(0, shape.length))) {
        if (random(0, 4) === 0) indices.push(null);
        const kind = random(0, 3);
        if (kind === 0) indices.push(random(-size, size - 1));
        else if (kind === 1 && !gathers) {
          gathers = true;
          indices.push(Array.from({ length: random(1, 3) }, () => random(-size, size - 1)));
        } else {
          const bound = (): number | undefined => (random(0, 2) === 0 ? undefined : random(-5, 5));
          indices.push(slice(bound(), bound(), random(1, 3)));
        }
      }
      torch.tidy(() => {
        const x = torch.arange(count(shape), { dtype: 'int32' }).reshape(shape);
        const expected = pick(nestedRange(shape), indices);
        expect(x.at(...indices).toArray(), `[${shape}] at ${JSON.stringify(indices)}`).toEqual(expected);
        const written = new Set([expected].flat(9) as number[]);
        x.set(indices, -1);
        const values = Array.from(x.data() as Int32Array);
        expect(values).toEqual(values.map((_, i) => (written.has(i) ? -1 : i)));
      });
    }
  });
});

describe('views and copies', () => {
  it('share memory unless an index tensor takes part', () => {
    torch.tidy(() => {
      const x = torch.zeros([2, 3]);
      x.at(0, slice(1)).fill_(5);
      x.at().add_(1);
      x.at('...').add_(1);
      x.at([0, 1]).fill_(9);
      expect(x.toArray()).toEqual([
        [2, 7, 7],
        [2, 2, 2],
      ]);
      expect(x.at()).not.toBe(x);
    });
  });

  it('carry gradients', () => {
    torch.tidy(() => {
      const x = torch.ones([3, 2], { requiresGrad: true });
      const mask = torch.tensor([true, false, true], { dtype: 'bool' });
      x.at(mask)
        .sum()
        .add(x.at(0, 1).mul(3))
        .add(x.at([2, 2], 0).sum())
        .backward();
      expectAllClose(x.grad!, [
        [1, 4],
        [0, 0],
        [3, 1],
      ]);
      const y = torch.zeros([3], { requiresGrad: true });
      const z = y.mul(2);
      z.set(slice(1), x.at(0));
      z.sum().backward();
      expectAllClose(y.grad!, [2, 0, 0]);
      expectAllClose(x.grad!, [
        [2, 5],
        [0, 0],
        [3, 1],
      ]);
    });
  });

  it('broadcast and convert what is written', () => {
    torch.tidy(() => {
      const x = torch.zeros([2, 3]);
      x.set([slice(), 1], torch.tensor([1, 2], { dtype: 'int64' }));
      x.set([1], true);
      x.set('...', x.add(1n));
      expect(x.toArray()).toEqual([
        [1, 2, 1],
        [2, 2, 2],
      ]);
      x.set(x.eq(2), torch.tensor([10, 20, 30, 40]));
      expect(x.toArray()).toEqual([
        [1, 10, 1],
        [20, 30, 40],
      ]);
      x.set(
        [
          [1, 0],
          [0, 2],
        ],
        torch.tensor([7]),
      );
      expect(x.toArray()).toEqual([
        [1, 10, 7],
        [7, 30, 40],
      ]);
      const same = x.set(0, 0);
      expect(same).toBe(x);
    });
  });
});

describe('indexing refuses', () => {
  // biome-ignore lint/suspicious/noExplicitAny: wrong on purpose
  const wrong = (value: unknown): any => value;
  const index = (...values: number[]): Tensor => torch.tensor(values, { dtype: 'int64' });
  const refusals: [what: string, code: FmoeErrorCode, message: RegExp, indices: () => Index[]][] = [
    ['an index beyond the end', 'ERR_INDEX', /index 2 is out of range for dimension 0 of size 2/, () => [2]],
    [
      'one before the beginning',
      'ERR_INDEX',
      /index -4 is out of range for dimension 1 of size 3/,
      () => [0, -4],
    ],
    ['a fraction', 'ERR_INDEX', /index 0.5 is not an integer/, () => [0.5]],
    ['NaN', 'ERR_INDEX', /index NaN is not an integer/, () => [Number.NaN]],
    ['too many indices', 'ERR_INDEX', /too many indices: 3 for a tensor of 2 dimensions/, () => [0, 0, 0]],
    [
      'a mask of too many dimensions',
      'ERR_INDEX',
      /too many indices: 3/,
      () => [torch.ones([2, 3, 1]).bool()],
    ],
    [
      'a mask of another shape',
      'ERR_INDEX',
      /mask of shape \[3\] lies over dimensions 0 to 0/,
      () => [torch.ones([3]).bool()],
    ],
    ["a second '...'", 'ERR_INDEX', /only once/, () => ['...', 0, '...']],
    ['an index tensor beyond the end', 'ERR_INDEX', /out of/, () => [index(2, 0)]],
    ['a list beyond the end', 'ERR_INDEX', /index 5 is out of range/, () => [[0, 5]]],
    [
      'a tensor without dimensions beyond the end',
      'ERR_INDEX',
      /index 9/,
      () => [torch.tensor(9, { dtype: 'int64' })],
    ],
    ['index tensors that do not broadcast', 'ERR_INDEX', /broadcast/, () => [index(0, 1), index(0, 1, 2)]],
    ['a floating-point index tensor', 'ERR_DTYPE', /float32, expected int64/, () => [torch.tensor([0, 1])]],
    ['a uint8 mask', 'ERR_DTYPE', /uint8.*bool for a mask/, () => [torch.ones([2], { dtype: 'uint8' })]],
    ['a step of zero', 'ERR_INDEX', /flip/, () => [{ step: 0 }]],
    ['a bound that is no integer', 'ERR_INDEX', /stop is 1.5/, () => [{ stop: 1.5 }]],
    ['a string', 'ERR_ARGUMENT', /first is no index/, () => [wrong('first')]],
    ['undefined', 'ERR_ARGUMENT', /undefined is no index/, () => [wrong(undefined)]],
    [
      'a disposed tensor',
      'ERR_DISPOSED',
      /./,
      () => {
        const gone = index(0);
        gone.dispose();
        return [gone];
      },
    ],
  ];

  it.each(refusals)('%s', (_what, code, message, make) => {
    torch.tidy(() => {
      const x = torch.arange(6).reshape([2, 3]);
      const indices = make();
      const before = torch.memory().tensors;
      const expected = expect.objectContaining({ code, message: expect.stringMatching(message) });
      expect(() => x.at(...indices)).toThrow(expected);
      expect(() => x.at(null, ...indices)).toThrow(expect.objectContaining({ code }));
      expect(() => x.set(indices, 1)).toThrow(expected);
      expect(torch.memory().tensors).toBe(before);
      expect(x.toArray()).toEqual([
        [0, 1, 2],
        [3, 4, 5],
      ]);
    });
  });

  it('steps backwards and broken bounds when a slice is made', () => {
    expect(() => slice(0, 5, -1)).toThrow(expect.objectContaining({ code: 'ERR_INDEX' }));
    expect(() => slice(0.5)).toThrow(expect.objectContaining({ code: 'ERR_INDEX' }));
  });

  it('values that do not fit', () => {
    torch.tidy(() => {
      const x = torch.zeros([2, 3]);
      for (const [indices, value, code] of [
        [[0], torch.ones([2]), 'ERR_SHAPE'],
        [[[0, 1]], torch.ones([2]), /ERR_SHAPE|ERR_INDEX/],
        [[[0, 1]], torch.ones([3]).double(), 'ERR_DTYPE'],
      ] as [Index[], Tensor, string | RegExp][]) {
        let caught: unknown;
        try {
          x.set(indices, value);
        } catch (error) {
          caught = error;
        }
        expect((caught as torch.FmoeError).code).toMatch(code);
      }
      const leaf = torch.zeros([2], { requiresGrad: true });
      expect(() => leaf.set(0, 1)).toThrow(expect.objectContaining({ code: 'ERR_AUTOGRAD' }));
      expect(() => torch.tensor(1).at(0)).toThrow(expect.objectContaining({ code: 'ERR_INDEX' }));
    });
  });
});
