import { FmoeError } from '../errors.js';
import { Tensor } from '../tensor/tensor.js';

/** How a loss is reduced: to one value per element, to their mean, or to their sum. */
export type Reduction = 'none' | 'mean' | 'sum';

/** A whole number of at least `minimum`, else `ERR_ARGUMENT`. */
export function checkCount(operation: string, name: string, value: number, minimum = 0): number {
  if (Number.isSafeInteger(value) && value >= minimum) return value;
  const wanted = minimum === 0 ? 'a non-negative integer' : `an integer of at least ${minimum}`;
  throw new FmoeError('ERR_ARGUMENT', `${operation}: ${name} must be ${wanted}, got ${show(value)}.`, {
    op: operation,
    argument: name,
  });
}

/** A number that is not NaN, else `ERR_ARGUMENT`. */
export function checkNumber(operation: string, name: string, value: number): number {
  if (typeof value === 'number' && !Number.isNaN(value)) return value;
  throw new FmoeError('ERR_ARGUMENT', `${operation}: ${name} must be a number, got ${show(value)}.`, {
    op: operation,
    argument: name,
  });
}

/** A number in [0, 1], else `ERR_ARGUMENT`. */
export function checkProbability(operation: string, name: string, value: number): number {
  if (typeof value === 'number' && value >= 0 && value <= 1) return value;
  throw new FmoeError(
    'ERR_ARGUMENT',
    `${operation}: ${name} is a probability and must lie between 0 and 1, got ${show(value)}.`,
    { op: operation, argument: name },
  );
}

/** One of the given strings, else `ERR_ARGUMENT` that lists them. */
export function checkChoice<Choice extends string>(
  operation: string,
  name: string,
  value: Choice,
  choices: readonly Choice[],
): Choice {
  if (choices.includes(value)) return value;
  const listed = choices.map((choice) => `'${choice}'`).join(', ');
  throw new FmoeError('ERR_ARGUMENT', `${operation}: ${name} must be one of ${listed}, got ${show(value)}.`, {
    op: operation,
    argument: name,
  });
}

/** `normalizedShape` as a list of sizes; a single number means one dimension. */
export function checkShape(operation: string, name: string, value: number | readonly number[]): number[] {
  const sizes = typeof value === 'number' ? [value] : value;
  if (!Array.isArray(sizes) || sizes.length === 0) {
    throw new FmoeError(
      'ERR_ARGUMENT',
      `${operation}: ${name} must be a size or a non-empty list of sizes, got ${show(value)}.`,
      { op: operation, argument: name },
    );
  }
  return sizes.map((size: number) => checkCount(operation, name, size));
}

/** A tensor, else `ERR_ARGUMENT`. */
export function checkTensor(operation: string, name: string, value: unknown): Tensor {
  if (value instanceof Tensor) return value;
  throw new FmoeError('ERR_ARGUMENT', `${operation}: ${name} must be a Tensor, got ${show(value)}.`, {
    op: operation,
    argument: name,
  });
}

/** A value as it appears in a message. */
export function show(value: unknown): string {
  if (value instanceof Tensor) return 'a Tensor';
  if (typeof value === 'string') return `'${value}'`;
  if (typeof value === 'function') return `the function ${value.name || '(anonymous)'}`;
  if (Array.isArray(value)) return `[${value.map(show).join(', ')}]`;
  if (typeof value === 'object' && value !== null) return `an object (${value.constructor?.name ?? 'plain'})`;
  return String(value);
}
