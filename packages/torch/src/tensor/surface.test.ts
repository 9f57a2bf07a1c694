import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { refuses, wrong } from '../../test/refusals.js';
import { decode, isEncoded } from '../../test/support/fixtures.js';
import { methodNames, overloads } from '../generated/overloads.js';
import * as torch from '../index.js';
import { describeEachDevice, expectAllClose, type TestDevice } from '../testing/index.js';

interface Case {
  name: string;
  args: unknown[];
  options: Record<string, unknown> | null;
  expected: unknown;
}

const readCases = <Type>(name: string): Type[] =>
  JSON.parse(readFileSync(new URL(`../../test/fixtures/${name}`, import.meta.url), 'utf8')) as Type[];
const cases = readCases<Case>('core-operators.json');
// biome-ignore lint/suspicious/noExplicitAny: called by name
const functions = torch as any;

function decodeAll(value: unknown, device: TestDevice): unknown {
  if (isEncoded(value)) return decode(value, device);
  return Array.isArray(value) ? value.map((item) => decodeAll(item, device)) : value;
}

function expectSame(actual: unknown, expected: unknown): void {
  if (Array.isArray(expected)) {
    expect(actual).toHaveLength(expected.length);
    expected.forEach((item, i) => {
      expectSame((actual as unknown[])[i], item);
    });
  } else if (expected instanceof torch.Tensor)
    expectAllClose(actual as torch.Tensor, expected, { atol: 1e-6 });
  else expect(actual).toEqual(expected);
}

describeEachDevice('operators give what PyTorch gives', (device) => {
  const titles = cases.map(
    (entry, i) => [`${entry.name} ${JSON.stringify(entry.options) ?? ''} #${i}`, entry] as const,
  );
  it.each(titles)('%s', (_title, { name, args, options, expected }) => {
    torch.tidy(() => {
      const values = decodeAll(args, device) as unknown[];
      const named = options === null ? [] : [options];
      expectSame(functions[name](...values, ...named), decodeAll(expected, device));
      const [first, ...rest] = values;
      if (first instanceof torch.Tensor && methodNames.includes(name)) {
        expectSame(
          (first as unknown as typeof functions)[name](...rest, ...named),
          decodeAll(expected, device),
        );
      }
    });
  });
});

interface Promotion {
  a: torch.DType;
  b?: torch.DType;
  scalar?: '2' | '2.5' | 'true';
  add: string;
  div: string;
  zeroDim?: string;
}

describe('dtypes promote as in PyTorch', () => {
  const scalars = { '2': 2, '2.5': 2.5, true: true };
  it.each(readCases<Promotion>('core-promotion.json'))(
    '$a with $b$scalar',
    ({ a, b, scalar, add, div, zeroDim }) => {
      torch.tidy(() => {
        const left = torch.ones([1], { dtype: a });
        if (b !== undefined) {
          const right = torch.ones([1], { dtype: b });
          expect([left.add(right).dtype, left.div(right).dtype]).toEqual([add, div]);
          expect(left.add(torch.ones([], { dtype: b })).dtype).toBe(zeroDim);
        } else {
          const number = scalars[scalar!];
          expect([left.add(number).dtype, left.div(number).dtype]).toEqual([add, div]);
        }
      });
    },
  );
});

describe('the surface', () => {
  it('has a function or method for every generated name', () => {
    for (const name of Object.keys(overloads)) {
      const inPlace = name.endsWith('_');
      expect(typeof (inPlace ? (torch.Tensor.prototype as never)[name] : functions[name]), name).toBe(
        'function',
      );
    }
    for (const name of methodNames)
      expect(typeof (torch.Tensor.prototype as never)[name], name).toBe('function');
  });

  it('chooses overloads by the kinds of the arguments, whatever came before', () => {
    torch.tidy(() => {
      const x = torch.tensor([1, 5, 3], { dtype: 'int64' });
      for (let round = 0; round < 2; round++) {
        expect(x.add(1).toArray()).toEqual([2n, 6n, 4n]);
        expect(x.add(x).toArray()).toEqual([2n, 10n, 6n]);
        expect(x.add(1.5).toArray()).toEqual([2.5, 6.5, 4.5]);
        expect(x.add(2n).toArray()).toEqual([3n, 7n, 5n]);
        expect(x.max().item()).toBe(5);
        expect(x.max(0).map((part) => part.item())).toEqual([5, 1]);
        expect(x.max(torch.tensor([2, 2, 9], { dtype: 'int64' })).toArray()).toEqual([2n, 5n, 9n]);
        expect(x.sum().item()).toBe(9);
        expect(x.sum([0], true).shape).toEqual([1]);
        expect(x.sum([0], { keepdim: true, dtype: 'float64' }).dtype).toBe('float64');
      }
    });
  });

  it('gives back the same object from methods that work in place', () => {
    torch.tidy(() => {
      const x = torch.zeros([2]);
      expect(
        x
          .add_(1)
          .mul_(3)
          .sub_(torch.ones([2])),
      ).toBe(x);
      expect(x.toArray()).toEqual([2, 2]);
    });
  });

  it('leaves nothing behind over ten rounds', () => {
    const round = () =>
      torch.tidy(() => {
        const x = torch.randn([4, 4]);
        torch.cat([x.matmul(x).softmax(-1), x.t()], 1).split(2, 1);
        x.topk(2);
      });
    round();
    const before = torch.memory().tensors;
    for (let i = 0; i < 10; i++) round();
    expect(torch.memory().tensors).toBe(before);
  });
});

describe('the surface refuses', () => {
  const x = () => torch.zeros([2, 3]);
  refuses([
    ['a string for a tensor', 'ERR_ARGUMENT', /add: no form takes.*'x'/s, () => x().add(wrong('x'))],
    ['an array for a tensor', 'ERR_ARGUMENT', /mm: no form takes.*\[1, 2\]/s, () => x().mm(wrong([1, 2]))],
    ['NaN as a dimension', 'ERR_ARGUMENT', /sum: no form takes.*\[NaN\]/s, () => x().sum([Number.NaN])],
    ['a missing tensor', 'ERR_ARGUMENT', /mm: no form takes/, () => wrong(x()).mm()],
    ['an unknown option', 'ERR_ARGUMENT', /sum: no form takes.*foo/s, () => wrong(x()).sum({ foo: 1 })],
    [
      'a this that is no tensor',
      'ERR_ARGUMENT',
      /add: no form takes/,
      () => wrong(torch.Tensor.prototype).add.call(5, x()),
    ],
    ['keyword-only arguments by position', 'ERR_ARGUMENT', /add: no form/, () => wrong(x()).add(x(), 2)],
  ]);
});
