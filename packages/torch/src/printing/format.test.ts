import { readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import type { DType } from '../tensor/dtype.js';
import { formatValues, shownPositions } from './format.js';
import { toExponentialEven, toFixedEven } from './format-number.js';
import { getPrintOptions, type PrintOptions, resetPrintOptions, setPrintOptions } from './print-options.js';

interface FormatCase {
  name: string;
  dtype: DType;
  shape: number[];
  data?: (number | string | boolean)[];
  divisor?: number;
  requiresGrad: boolean;
  gradFn: string | null;
  options: {
    precision?: number;
    threshold?: number;
    edgeitems?: number;
    linewidth?: number;
    sci_mode?: boolean;
  };
  text: string;
}

const { cases } = JSON.parse(
  readFileSync(new URL('../../test/fixtures/format.json', import.meta.url), 'utf8'),
) as { cases: FormatCase[] };

const special: Record<string, number> = {
  nan: Number.NaN,
  inf: Number.POSITIVE_INFINITY,
  '-inf': Number.NEGATIVE_INFINITY,
  '-0': -0,
};

function values({ data, divisor = 1, shape, dtype }: FormatCase): (number | bigint | boolean)[] {
  const count = shape.reduce((product, size) => product * size, 1);
  if (!data) return Array.from({ length: count }, (_, i) => ((i * 7919) % 4001) / divisor - 20);
  return data.map((value) => {
    if (typeof value !== 'string') return value;
    return special[value] ?? (dtype === 'int64' ? BigInt(value) : Number(value));
  });
}

function printOptions({ options }: FormatCase): PrintOptions {
  return {
    precision: options.precision ?? 4,
    threshold: options.threshold ?? 1000,
    edgeItems: options.edgeitems ?? 3,
    lineWidth: options.linewidth ?? 80,
    sciMode: options.sci_mode ?? null,
  };
}

describe('formatValues equals PyTorch', () => {
  test('there are fixtures', () => expect(cases.length).toBeGreaterThan(60));
  test.each(cases)('$name', (fixture) => {
    const { shape, dtype, requiresGrad, gradFn, text } = fixture;
    const input = { data: values(fixture), shape, dtype, requiresGrad, gradFn };
    expect(formatValues(input, printOptions(fixture))).toBe(text);
  });
});

describe('formatValues', () => {
  test('takes edges alone and prints the same text', () => {
    const shape = [20, 100];
    const data = Array.from({ length: 2000 }, (_, i) => i);
    const rows = shownPositions(20, 3);
    const columns = shownPositions(100, 3);
    const edges = rows.flatMap((row) => columns.map((column) => data[row * 100 + column]!));
    const whole = formatValues({ data, shape, dtype: 'int32' });
    expect(formatValues({ data: edges, shape, dtype: 'int32', edgesOnly: true })).toBe(whole);
    expect(edges).toHaveLength(36);
  });

  test('names every device but the CPU', () => {
    const input = { data: [1, 2], shape: [2], dtype: 'float32' as const };
    expect(formatValues({ ...input, device: 'cpu' })).toBe('tensor([1., 2.])');
    expect(formatValues({ ...input, device: 'cuda:0' })).toBe("tensor([1., 2.], device='cuda:0')");
  });
});

describe('decimal formatting', () => {
  test('rounds ties to even', () => {
    expect([0.5, 1.5, 2.5, -2.5].map((x) => toFixedEven(x, 0))).toEqual(['0', '2', '2', '-2']);
    expect([0.125, 0.375].map((x) => toFixedEven(x, 2))).toEqual(['0.12', '0.38']);
    expect([2.5, 3.5, 25].map((x) => toExponentialEven(x, 0))).toEqual(['2e+00', '4e+00', '2e+01']);
  });

  test('rounds the exact value of the double, not its shortest decimal', () => {
    // 1.005 is stored as 1.00499999999999989…, 0.145 as 0.14499999999999999…
    expect(toFixedEven(1.005, 2)).toBe('1.00');
    expect(toFixedEven(0.145, 2)).toBe('0.14');
  });

  test('writes signs, special values and big numbers', () => {
    expect(toFixedEven(-0, 1)).toBe('-0.0');
    expect(toExponentialEven(-0, 1)).toBe('-0.0e+00');
    expect(toFixedEven(Number.NEGATIVE_INFINITY, 2)).toBe('-inf');
    expect(toExponentialEven(Number.NaN, 2)).toBe('nan');
    expect(toFixedEven(1e22, 2)).toBe('10000000000000000000000.00');
    expect(toExponentialEven(1e-300, 3)).toBe('1.000e-300');
  });
});

describe('print options', () => {
  test('are set, kept and reset', () => {
    const x = { data: [1 / 3], shape: [1], dtype: 'float32' as const };
    setPrintOptions({ precision: 2 });
    expect(formatValues(x)).toBe('tensor([0.33])');
    setPrintOptions({ lineWidth: 100 });
    expect(getPrintOptions()).toMatchObject({ precision: 2, lineWidth: 100 });
    resetPrintOptions();
    expect(formatValues(x)).toBe('tensor([0.3333])');
  });

  test.each([
    { precision: -1 },
    { precision: 2.5 },
    { edgeItems: 0 },
    { lineWidth: 0 },
    { threshold: Number.NaN },
  ])('refuse %o', (options) => {
    const before = getPrintOptions();
    expect(() => setPrintOptions(options)).toThrowError(expect.objectContaining({ code: 'ERR_ARGUMENT' }));
    expect(getPrintOptions()).toEqual(before);
  });
});
