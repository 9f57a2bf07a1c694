import { describe, expect, it } from 'vitest';
import { refuses, wrong } from '../../test/refusals.js';
import * as torch from '../index.js';
import { describeEachDevice } from '../testing/index.js';

const range = (length: number, value: (i: number) => number): number[] =>
  Array.from({ length }, (_, i) => value(i));

describeEachDevice('factories', (device) => {
  it.each(torch.dtypes)('make %s', (dtype) => {
    torch.tidy(() => {
      const one = dtype === 'int64' ? 1n : dtype === 'bool' ? true : 1;
      const zero = dtype === 'int64' ? 0n : dtype === 'bool' ? false : 0;
      const options = { dtype, device };
      expect(torch.zeros([2], options).toArray()).toEqual([zero, zero]);
      expect(torch.ones([1, 2], options).toArray()).toEqual([[one, one]]);
      expect(torch.full([2], 1, options).toArray()).toEqual([one, one]);
      expect(torch.empty([2, 0], options).shape).toEqual([2, 0]);
      expect(torch.eye(2, options).toArray()).toEqual([
        [one, zero],
        [zero, one],
      ]);
      expect(torch.tensor([[0, 1]], options).toArray()).toEqual([[zero, one]]);
      for (const made of [torch.zeros([1], options), torch.tensor(1, options)])
        expect(made.dtype).toBe(dtype);
    });
  });

  it('make float32 whatever the values, unless told otherwise', () => {
    torch.tidy(() => {
      const made = [
        torch.zeros([1], { device }),
        torch.ones([1], { device }),
        torch.empty([1], { device }),
        torch.full([1], 3, { device }),
        torch.full([1], true, { device }),
        torch.arange(3, { device }),
        torch.linspace(0, 1, 3, { device }),
        torch.eye(2, { device }),
        torch.rand([1], { device }),
        torch.randn([1], { device }),
        torch.tensor([1, 2], { device }),
        torch.tensor([true], { device }),
      ];
      expect(new Set(made.map(({ dtype }) => dtype))).toEqual(new Set(['float32']));
      expect([torch.randint(0, 2, [1], { device }).dtype, torch.randperm(3, { device }).dtype]).toEqual([
        'int64',
        'int64',
      ]);
    });
  });

  it('count', () => {
    torch.tidy(() => {
      expect(torch.arange(4, { device }).toArray()).toEqual([0, 1, 2, 3]);
      expect(torch.arange(2, 5, { device }).toArray()).toEqual([2, 3, 4]);
      expect(torch.arange(1, 2, 0.25, { device }).toArray()).toEqual([1, 1.25, 1.5, 1.75]);
      expect(torch.arange(5, 0, -2, { device }).toArray()).toEqual([5, 3, 1]);
      expect(torch.arange(0, { device }).shape).toEqual([0]);
      expect(torch.arange(3, { device, dtype: 'int64' }).toArray()).toEqual([0n, 1n, 2n]);
      const line = torch.linspace(-1, 2, 7, { device, dtype: 'float64' }).toArray() as number[];
      range(7, (i) => -1 + i / 2).forEach((value, i) => {
        expect(line[i]).toBeCloseTo(value, 14);
      });
      expect(torch.eye(2, 3, { device }).toArray()).toEqual([
        [1, 0, 0],
        [0, 1, 0],
      ]);
    });
  });

  it('make leaves that require gradients', () => {
    torch.tidy(() => {
      for (const made of [
        torch.zeros([1], { device, requiresGrad: true }),
        torch.tensor([1], { device, requiresGrad: true }),
        torch.randn([1], { device, requiresGrad: true }),
        torch.arange(2, { device, requiresGrad: true }),
        torch.tensor([1], { device, dtype: 'float64', requiresGrad: true }),
      ]) {
        expect([made.requiresGrad, made.isLeaf]).toEqual([true, true]);
      }
    });
  });

  it('follow another tensor', () => {
    torch.tidy(() => {
      const x = torch.randn([2, 3], { dtype: 'float64', device });
      for (const like of [
        torch.zerosLike(x),
        torch.onesLike(x),
        torch.emptyLike(x),
        torch.randnLike(x),
        torch.fullLike(x, 2),
      ]) {
        expect([like.shape, like.dtype, like.device]).toEqual([x.shape, x.dtype, x.device]);
      }
      expect(torch.zerosLike(x, { dtype: 'int64' }).toArray()).toEqual([
        [0n, 0n, 0n],
        [0n, 0n, 0n],
      ]);
    });
  });

  it('draw from the ranges that they say', () => {
    torch.tidy(() => {
      const uniform = torch.rand([10_000], { device });
      expect(uniform.min().item()).toBeGreaterThanOrEqual(0);
      expect(uniform.max().item()).toBeLessThan(1);
      expect(Math.abs(uniform.mean().item() - 0.5)).toBeLessThan(0.02);
      const normal = torch.randn([10_000], { device });
      expect(Math.abs(normal.mean().item())).toBeLessThan(0.05);
      expect(Math.abs(normal.std().item() - 1)).toBeLessThan(0.05);
      const integers = new Set(torch.randint(-2, 3, [1000], { device }).toArray() as bigint[]);
      expect(integers).toEqual(new Set([-2n, -1n, 0n, 1n, 2n]));
      const order = torch.randperm(100, { device }).toArray() as bigint[];
      expect([...order].sort((a, b) => Number(a - b))).toEqual(range(100, (i) => i).map(BigInt));
      expect(order).not.toEqual(range(100, (i) => i).map(BigInt));
    });
  });
});

describe('tensor', () => {
  it('reads nested arrays row by row', () => {
    torch.tidy(() => {
      expect(
        torch
          .tensor([
            [1, 2],
            [3, 4],
            [5, 6],
          ])
          .toArray(),
      ).toEqual([
        [1, 2],
        [3, 4],
        [5, 6],
      ]);
      expect(torch.tensor([]).shape).toEqual([0]);
      expect(torch.tensor([[], []]).shape).toEqual([2, 0]);
      expect(torch.tensor([1, 2n, true]).toArray()).toEqual([1, 2, 1]);
      expect(torch.tensor([Number.NaN, Number.POSITIVE_INFINITY]).toArray()).toEqual([
        Number.NaN,
        Number.POSITIVE_INFINITY,
      ]);
      expect(torch.tensor([0.5, 0, Number.NaN, 2], { dtype: 'bool' }).toArray()).toEqual([
        true,
        false,
        true,
        true,
      ]);
    });
  });

  it.each([
    ['uint8', 0n, 255n],
    ['int8', -128n, 127n],
    ['int16', -(2n ** 15n), 2n ** 15n - 1n],
    ['int32', -(2n ** 31n), 2n ** 31n - 1n],
    ['int64', -(2n ** 63n), 2n ** 63n - 1n],
  ] as const)('takes all of %s and nothing beyond', (dtype, low, high) => {
    torch.tidy(() => {
      const read = (torch.tensor([low, high], { dtype }).toArray() as (number | bigint)[]).map(BigInt);
      expect(read).toEqual([low, high]);
      for (const value of [low - 1n, high + 1n]) {
        expect(() => torch.tensor([value], { dtype })).toThrow(
          expect.objectContaining({ code: 'ERR_DTYPE' }),
        );
        expect(() => torch.tensor([Number(value) * 2], { dtype })).toThrow(
          expect.objectContaining({ code: 'ERR_DTYPE' }),
        );
      }
    });
  });

  it('leaves nothing behind, also when it fails', () => {
    torch.tidy(() => {
      const before = torch.memory().tensors;
      torch.tensor([1, 2], { dtype: 'int8' });
      expect(() => torch.tensor([1], { dtype: 'int64', requiresGrad: true })).toThrow();
      expect(() => torch.tensor([1], { device: 'cuda:77' })).toThrow();
      expect(() => torch.zeros([1], { dtype: 'int64', requiresGrad: true })).toThrow();
      expect(torch.memory().tensors).toBe(before + 1);
    });
  });
});

describe('factories refuse', () => {
  const deep = (levels: number): never => {
    let nested: unknown = 1;
    for (let i = 0; i < levels; i++) nested = [nested];
    return nested as never;
  };
  const itself: unknown[] = [];
  itself[0] = itself;
  refuses([
    ['a negative size', 'ERR_SHAPE', /zeros.*non-negative/, () => torch.zeros([2, -1])],
    ['a fraction of a size', 'ERR_ARGUMENT', /'size'.*1.5/, () => torch.zeros([1.5])],
    ['a size that is no number', 'ERR_ARGUMENT', /'size'/, () => torch.ones(wrong(['2']))],
    [
      'a number for a shape',
      'ERR_ARGUMENT',
      /'size' must be an array of numbers, got 3/,
      () => torch.zeros(wrong(3)),
    ],
    ['no shape', 'ERR_ARGUMENT', /'size'.*required/, () => torch.zeros(wrong(undefined))],
    ['nested shapes', 'ERR_ARGUMENT', /'size'/, () => torch.zeros(wrong([[1], 2]))],
    [
      'more memory than there is',
      'ERR_OUT_OF_MEMORY',
      /aten::zeros.*\[1000000, 1000000, 1000\]/,
      () => torch.zeros([1e6, 1e6, 1e3]),
    ],
    ['more bytes than can be counted', 'ERR_SHAPE', /overflow/, () => torch.zeros([2 ** 52, 2 ** 52])],
    ['an unknown dtype', 'ERR_DTYPE', /'float31'/, () => torch.zeros([1], { dtype: wrong('float31') })],
    [
      'the name of a property as dtype',
      'ERR_DTYPE',
      /'constructor'/,
      () => torch.zeros([1], { dtype: wrong('constructor') }),
    ],
    [
      'an unknown device',
      'ERR_DEVICE',
      /unknown device 'gpu'.*'cuda'/,
      () => torch.zeros([1], { device: 'gpu' }),
    ],
    ['a GPU that is not there', 'ERR_DEVICE', /'cuda:99'/, () => torch.zeros([1], { device: 'cuda:99' })],
    ['a second CPU', 'ERR_DEVICE', /'cpu:1'/, () => torch.zeros([1], { device: 'cpu:1' })],
    ['a device of another kind', 'ERR_DEVICE', /'mkldnn'/, () => torch.zeros([1], { device: 'mkldnn' })],
    ['an empty device', 'ERR_DEVICE', /''/, () => torch.zeros([1], { device: '' })],
    ['a device by number', 'ERR_ARGUMENT', /'device'.*0/, () => torch.zeros([1], { device: wrong(0) })],
    [
      'a dtype in place of options',
      'ERR_ARGUMENT',
      /'options'.*'float64'/,
      () => torch.zeros([1], wrong('float64')),
    ],
    ['null in place of options', 'ERR_ARGUMENT', /'options'.*null/, () => torch.zeros([1], wrong(null))],
    [
      'a misspelt option',
      'ERR_ARGUMENT',
      /'dtyp'.*dtype/,
      () => torch.zeros([1], wrong({ dtyp: 'float64' })),
    ],
    [
      'a generator where nothing is drawn',
      'ERR_ARGUMENT',
      /'generator'/,
      () => torch.zeros([1], wrong({ generator: null })),
    ],
    [
      'a generator that is none',
      'ERR_ARGUMENT',
      /Generator, got 5/,
      () => torch.randn([1], { generator: wrong(5) }),
    ],
    [
      'a flag that is no flag',
      'ERR_ARGUMENT',
      /'yes'/,
      () => torch.zeros([1], { requiresGrad: wrong('yes') }),
    ],
    ['a value that is no number', 'ERR_ARGUMENT', /'fill_value'/, () => torch.full([1], wrong('x'))],
    ['a value out of range', 'ERR_ARGUMENT', /overflow/, () => torch.full([1], 300, { dtype: 'uint8' })],
    ['a range without end', 'ERR_ARGUMENT', /arange.*\(\)/, () => wrong(torch).arange()],
    ['a range of strings', 'ERR_ARGUMENT', /arange.*'5'/, () => torch.arange(wrong('5'))],
    ['a range with too much', 'ERR_ARGUMENT', /arange/, () => wrong(torch).arange(1, 2, 3, 4)],
    ['a range to NaN', 'ERR_ARGUMENT', /nan/, () => torch.arange(Number.NaN)],
    ['a step of nothing', 'ERR_ARGUMENT', /step/, () => torch.arange(0, 5, 0)],
    ['a step the wrong way', 'ERR_ARGUMENT', /sign/, () => torch.arange(0, 5, -1)],
    [
      'half steps of integers',
      'ERR_ARGUMENT',
      /step 0.5.*int64/,
      () => torch.arange(0, 5, 0.5, { dtype: 'int64' }),
    ],
    ['an endless range', 'ERR_OUT_OF_MEMORY', /arange.*1000000000000000/, () => torch.arange(1e15)],
    ['a negative number of steps', 'ERR_ARGUMENT', /steps/, () => torch.linspace(0, 1, -5)],
    ['a negative identity', 'ERR_ARGUMENT', /-1/, () => torch.eye(-1)],
    ['an identity of strings', 'ERR_ARGUMENT', /'n'/, () => torch.eye(wrong('x'))],
    ['a second size that is none', 'ERR_ARGUMENT', /'m'/, () => torch.eye(2, wrong('x'))],
    ['a range the wrong way', 'ERR_ARGUMENT', /from=5.*to=2/, () => torch.randint(5, 2, [1])],
    ['fractions as bounds of integers', 'ERR_ARGUMENT', /'low'.*0.5/, () => torch.randint(0.5, 2, [1])],
    ['uniform integers', 'ERR_DTYPE', /Long/, () => torch.rand([1], { dtype: 'int64' })],
    ['a negative permutation', 'ERR_SHAPE', /-1/, () => torch.randperm(-1)],
    ['ragged arrays', 'ERR_SHAPE', /ragged.*\[2, 1\]/, () => torch.tensor([[1], [2, 3]])],
    ['a number beside arrays', 'ERR_SHAPE', /ragged/, () => torch.tensor(wrong([[1], 2]))],
    ['an array beside numbers', 'ERR_SHAPE', /ragged/, () => torch.tensor(wrong([1, [2]]))],
    ['strings as values', 'ERR_ARGUMENT', /got '1'/, () => torch.tensor(wrong(['1']))],
    ['null as a value', 'ERR_ARGUMENT', /got null/, () => torch.tensor(wrong(null))],
    ['holes', 'ERR_ARGUMENT', /got undefined/, () => torch.tensor(wrong(new Array(2)))],
    [
      'an object without prototype',
      'ERR_ARGUMENT',
      /an object/,
      () => torch.tensor(wrong([Object.create(null)])),
    ],
    ['a typed array', 'ERR_ARGUMENT', /fromTypedArray/, () => torch.tensor(wrong(new Float32Array(2)))],
    ['a tensor', 'ERR_ARGUMENT', /float32 tensor \[1\]/, () => torch.tensor(wrong(torch.zeros([1])))],
    ['arrays too deep', 'ERR_SHAPE', /64 levels/, () => torch.tensor(deep(65))],
    ['arrays that contain themselves', 'ERR_SHAPE', /64 levels/, () => torch.tensor(wrong(itself))],
    ['fractions as integers', 'ERR_DTYPE', /1.5.*int64/, () => torch.tensor([1.5], { dtype: 'int64' })],
    ['NaN as an integer', 'ERR_DTYPE', /NaN/, () => torch.tensor([Number.NaN], { dtype: 'int8' })],
  ]);
});
