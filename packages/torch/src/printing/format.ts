// Printing of tensors with PyTorch's layout: one notation and one width for all values shown, lines of 80 characters,
// and only the edges of tensors with more than a thousand elements.
import type { DType } from '../tensor/dtype.js';
import { toExponentialEven, toFixedEven } from './format-number.js';
import { getPrintOptions, type PrintOptions } from './print-options.js';

/** What {@link formatValues} prints: plain values, so that printing needs no device and no library. */
export interface FormatInput {
  /** Values in row-major order: all of them, or only the edges when `edgesOnly` is set. */
  data: ArrayLike<number | bigint | boolean>;
  /** Shape of the whole tensor, also when `edgesOnly` is set. */
  shape: readonly number[];
  dtype: DType;
  /** Printed unless it is the CPU. */
  device?: string;
  /** Name of the backward node, e.g. `AddBackward0`. */
  gradFn?: string | null;
  requiresGrad?: boolean;
  /** `data` holds, in every dimension longer than 2 x `edgeItems`, only the first and last `edgeItems`. */
  edgesOnly?: boolean;
}

type Value = number | bigint | boolean;

const floatingDTypes: ReadonlySet<DType> = new Set(['float64', 'float32', 'float16', 'bfloat16']);
/** Dtypes that literals of the language produce, so printing leaves them out. */
const impliedDTypes: ReadonlySet<DType> = new Set(['float32', 'int64', 'bool']);

const elementCount = (shape: readonly number[]): number => shape.reduce((product, size) => product * size, 1);

/** Positions shown of a dimension of `size` items: all, or the edges. */
export function shownPositions(size: number, edgeItems: number): number[] {
  const cut = size > 2 * edgeItems;
  return Array.from({ length: cut ? 2 * edgeItems : size }, (_, i) =>
    cut && i >= edgeItems ? size - 2 * edgeItems + i : i,
  );
}

/** Whether a tensor of this shape prints only its edges. */
export function isSummarized(shape: readonly number[], options: PrintOptions = getPrintOptions()): boolean {
  return elementCount(shape) > options.threshold;
}

/** Picks the edge items of a full row-major array. */
function pickEdges(data: ArrayLike<Value>, shape: readonly number[], edgeItems: number): Value[] {
  let offsets = [0];
  let stride = elementCount(shape);
  for (const size of shape) {
    stride /= size;
    const positions = shownPositions(size, edgeItems);
    const step = stride;
    offsets = offsets.flatMap((offset) => positions.map((position) => offset + position * step));
  }
  return offsets.map((offset) => data[offset]!);
}

interface ValueFormat {
  /** Characters of the longest finite value: what the line breaks are computed from. */
  width: number;
  format: (value: Value) => string;
}

/** The one notation and width that fit all the values shown. */
function chooseFormat(values: readonly Value[], dtype: DType, options: PrintOptions): ValueFormat {
  if (!floatingDTypes.has(dtype)) {
    const text = (value: Value): string => (dtype === 'bool' ? (value ? 'True' : 'False') : value.toString());
    const width = values.reduce<number>((longest, value) => Math.max(longest, text(value).length), 1);
    return { width, format: (value) => text(value).padStart(width) };
  }
  const { precision } = options;
  const finite = (values as readonly number[]).filter((value) => Number.isFinite(value) && value !== 0);
  const magnitudes = finite.map(Math.abs);
  const smallest = magnitudes.reduce((a, b) => Math.min(a, b), Number.POSITIVE_INFINITY);
  const largest = magnitudes.reduce((a, b) => Math.max(a, b), 0);
  const wantsScientific = largest / smallest > 1000 || largest > 1e8 || smallest < 1e-4;
  const scientific = finite.length > 0 && (options.sciMode ?? wantsScientific);

  let text = (value: number): string => toFixedEven(value, precision);
  if (scientific) text = (value) => toExponentialEven(value, precision);
  else if (finite.every(Number.isInteger)) {
    text = (value) => toFixedEven(value, 0) + (Number.isFinite(value) ? '.' : '');
  }
  const width = finite.reduce((longest, value) => Math.max(longest, text(value).length), 1);
  return { width, format: (value) => text(value as number).padStart(width) };
}

/** Nested brackets of the shown values, with lines broken at the line width. */
function formatBody(
  shown: readonly Value[],
  shape: readonly number[],
  isCut: (size: number) => boolean,
  indent: number,
  options: PrintOptions,
  { width, format }: ValueFormat,
): string {
  const { edgeItems, lineWidth } = options;
  if (shape.length === 0) return format(shown[0]!);
  const last = shape.length - 1;
  let next = 0;
  const block = (dimension: number): string => {
    const size = shape[dimension]!;
    const cut = isCut(size);
    const items: string[] = [];
    for (let i = 0; i < (cut ? 2 * edgeItems : size); i++) {
      if (cut && i === edgeItems) items.push(dimension === last ? ' ...' : '...');
      items.push(dimension === last ? format(shown[next++]!) : block(dimension + 1));
    }
    const margin = ' '.repeat(indent + dimension + 1);
    if (dimension < last) return `[${items.join(`,${'\n'.repeat(last - dimension)}${margin}`)}]`;
    const perLine = Math.max(1, Math.floor((lineWidth - indent - dimension) / (width + 2)));
    const lines: string[] = [];
    for (let i = 0; i < items.length; i += perLine) lines.push(items.slice(i, i + perLine).join(', '));
    return `[${lines.join(`,\n${margin}`)}]`;
  };
  return block(0);
}

/** Appends `, suffix` pieces, each on a line of its own where the line would become too long, and closes the bracket. */
function appendSuffixes(
  text: string,
  suffixes: readonly string[],
  indent: number,
  lineWidth: number,
): string {
  let result = text;
  let lineLength = text.length - text.lastIndexOf('\n') + 1;
  for (const suffix of suffixes) {
    if (lineLength + suffix.length + 2 > lineWidth) {
      result += `,\n${' '.repeat(indent)}${suffix}`;
      lineLength = indent + suffix.length;
    } else {
      result += `, ${suffix}`;
      lineLength += suffix.length + 2;
    }
  }
  return `${result})`;
}

const pythonTuple = (shape: readonly number[]): string =>
  shape.length === 1 ? `(${shape[0]},)` : `(${shape.join(', ')})`;

/**
 * Prints values as PyTorch's `str(tensor)` does: `tensor([[1.0000, 2.5000]], dtype=torch.float64)`.
 *
 * @param input the values with shape, dtype and what else the text mentions
 * @param options print options; by default those set by `setPrintOptions`
 */
export function formatValues(input: FormatInput, options: PrintOptions = getPrintOptions()): string {
  const { data, shape, dtype, device, gradFn, requiresGrad, edgesOnly } = input;
  const prefix = 'tensor(';
  const empty = elementCount(shape) === 0;
  const suffixes: string[] = [];
  if (device !== undefined && device !== 'cpu') suffixes.push(`device='${device}'`);
  if (empty && shape.length !== 1) suffixes.push(`size=${pythonTuple(shape)}`);
  // An empty tensor has no element that would tell its dtype.
  if (empty ? dtype !== 'float32' : !impliedDTypes.has(dtype)) suffixes.push(`dtype=torch.${dtype}`);
  if (gradFn) suffixes.push(`grad_fn=<${gradFn}>`);
  else if (requiresGrad) suffixes.push('requires_grad=True');

  let body = '[]';
  if (!empty) {
    const summarized = isSummarized(shape, options);
    const isCut = (size: number): boolean => summarized && size > 2 * options.edgeItems;
    const shown = summarized && !edgesOnly ? pickEdges(data, shape, options.edgeItems) : Array.from(data);
    const valueFormat = chooseFormat(shown, dtype, options);
    body = formatBody(shown, shape, isCut, prefix.length, options, valueFormat);
  }
  return appendSuffixes(prefix + body, suffixes, prefix.length, options.lineWidth);
}
