import { describeValue } from './describe.js';
import { FmoeError } from './errors.js';
import { TensorBase } from './tensor/tensor-base.js';

/*
 * Checks of what callers without types may pass. They keep to what costs nothing: whether a value is a tensor, a function
 * or a known option. Shapes, dtypes and devices are the operators' business.
 */

function reject(op: string, argument: string, expected: string, value: unknown): never {
  throw new FmoeError(
    'ERR_ARGUMENT',
    `${op}: argument '${argument}' must be ${expected}, got ${describeValue(value)}`,
    {
      op,
      argument,
    },
  );
}

/** A function, else `ERR_ARGUMENT`. */
export function checkFunction(op: string, argument: string, value: unknown): void {
  if (typeof value !== 'function') reject(op, argument, 'a function', value);
}

/** A tensor, else `ERR_ARGUMENT`. */
export function checkTensor(op: string, argument: string, value: unknown): void {
  if (!(value instanceof TensorBase)) reject(op, argument, 'a tensor', value);
}

/** An array of tensors (and nulls, if `nullable`), else `ERR_ARGUMENT`. */
export function checkTensors(op: string, argument: string, value: unknown, nullable = false): void {
  if (!Array.isArray(value)) reject(op, argument, 'an array of tensors', value);
  for (const item of value as unknown[]) {
    if (item instanceof TensorBase || (nullable && (item === null || item === undefined))) continue;
    reject(op, argument, 'an array of tensors', value);
  }
}

/** True or false, else `ERR_ARGUMENT`. */
export function checkBoolean(op: string, argument: string, value: unknown): void {
  if (typeof value !== 'boolean') reject(op, argument, 'true or false', value);
}

/** A string, else `ERR_ARGUMENT`. */
export function checkString(op: string, argument: string, value: unknown): void {
  if (typeof value !== 'string') reject(op, argument, 'a string', value);
}

/** A whole number of at least `minimum`, else `ERR_ARGUMENT`. */
export function checkCount(op: string, argument: string, value: unknown, minimum = 0): void {
  if (!Number.isSafeInteger(value) || (value as number) < minimum) {
    reject(op, argument, `an integer of at least ${minimum}`, value);
  }
}

/** A shape, else `ERR_ARGUMENT` (`ERR_SHAPE` for a negative size). */
export function checkShape(op: string, value: unknown): void {
  if (!Array.isArray(value)) reject(op, 'shape', 'an array of sizes', value);
  const sizes = value as unknown[];
  if (!sizes.every((size) => Number.isSafeInteger(size))) reject(op, 'shape', 'an array of integers', value);
  if (sizes.some((size) => (size as number) < 0)) {
    throw new FmoeError('ERR_SHAPE', `${op}: the shape ${describeValue(value)} has a negative size`, {
      op,
      argument: 'shape',
    });
  }
}

/** A seed as 64 bits; negative ones count from the top, as in PyTorch. */
export function seedBits(op: string, seed: unknown): bigint {
  if (typeof seed !== 'bigint' && !Number.isSafeInteger(seed)) reject(op, 'seed', 'an integer', seed);
  const value = BigInt(seed as number | bigint);
  const bits = BigInt.asUintN(64, value);
  if (bits !== value && BigInt.asIntN(64, value) !== value) reject(op, 'seed', 'an integer of 64 bits', seed);
  return bits;
}

/** An object that has no other than the given properties, else `ERR_ARGUMENT`. Spares users a misspelt option. */
export function checkOptions(op: string, options: unknown, names: readonly string[]): void {
  if (
    typeof options !== 'object' ||
    options === null ||
    Array.isArray(options) ||
    options instanceof TensorBase
  ) {
    reject(op, 'options', `an object with any of ${names.join(', ')}`, options);
  }
  for (const name in options) {
    if (names.includes(name)) continue;
    throw new FmoeError('ERR_ARGUMENT', `${op}: unknown option '${name}'. Options are: ${names.join(', ')}`, {
      op,
      argument: name,
    });
  }
}

/**
 * Refuses a promise where a mode or a scope ends with the call. The promise's own failure is left to whoever holds it.
 *
 * @param why what to say after "the function returned a promise"
 */
export function refusePromise(op: string, result: unknown, why: string): void {
  if (
    typeof result !== 'object' ||
    result === null ||
    typeof (result as { then?: unknown }).then !== 'function'
  )
    return;
  if (result instanceof Promise) result.catch(() => {});
  throw new FmoeError('ERR_ARGUMENT', `${op}(): the function returned a promise, ${why}`, { op });
}
