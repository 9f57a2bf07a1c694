import { FmoeError } from '../errors.js';
import { isDType, isFloatingPoint } from '../tensor/dtype.js';
import type { Tensor } from '../tensor/tensor.js';
import { checkTensor } from './check.js';

/*
 * The functions of nn check nothing about tensors before a call: each property read of a tensor costs, and the
 * operators check already. When an operator does throw, the checks below run over its arguments, and the first that
 * fails says in the function's own words and with an exact code what was wrong.
 */

/** These say all there is to say; no check of arguments makes them clearer. */
const FINAL = new Set(['ERR_DISPOSED', 'ERR_OUT_OF_MEMORY', 'ERR_INDEX']);

/**
 * The error to throw for a failed operator call: that of the first check that fails (with `error` as its cause), or
 * else `error` itself.
 */
export function diagnose(error: unknown, checks: () => void): unknown {
  if (FmoeError.isInstance(error) && FINAL.has(error.code)) return error;
  try {
    checks();
  } catch (clearer) {
    if (clearer !== error && clearer instanceof Error && clearer.cause === undefined) {
      Object.defineProperty(clearer, 'cause', {
        value: error,
        configurable: true,
        enumerable: false,
        writable: true,
      });
    }
    return clearer;
  }
  return error;
}

/** Named arguments of an operation; those that are null or undefined were not given. */
export type NamedTensors = Record<string, Tensor | null | undefined>;

/** The required arguments are tensors, and so are those of the optional ones that were given. */
export function requireTensors(operation: string, required: NamedTensors, optional: NamedTensors = {}): void {
  for (const [name, tensor] of [...Object.entries(required), ...given(optional)]) {
    checkTensor(operation, name, tensor);
  }
}

/** The tensors lie on one device; else `ERR_DEVICE`. */
export function requireSameDevice(operation: string, tensors: NamedTensors): void {
  const devices = given(tensors).map(([, tensor]) => tensor.device);
  if (new Set(devices).size <= 1) return;
  const listed = given(tensors).map(([name, tensor]) => `${name} on ${tensor.device}`);
  throw new FmoeError(
    'ERR_DEVICE',
    `${operation}: all tensors must lie on one device, got ${listed.join(', ')}. Move them with .to(device).`,
    { op: operation, devices },
  );
}

/** The tensors have one dtype; else `ERR_DTYPE`. */
export function requireSameDtype(operation: string, tensors: NamedTensors): void {
  const dtypes = given(tensors).map(([, tensor]) => tensor.dtype);
  if (new Set(dtypes).size <= 1) return;
  const listed = given(tensors).map(([name, tensor]) => `${name} is ${tensor.dtype}`);
  throw new FmoeError(
    'ERR_DTYPE',
    `${operation}: all tensors must have one dtype, but ${listed.join(', ')}. Convert them with .to(dtype).`,
    { op: operation, dtypes },
  );
}

/** The tensors are floating-point; else `ERR_DTYPE`. */
export function requireFloating(operation: string, tensors: NamedTensors): void {
  for (const [name, tensor] of given(tensors)) {
    if (isDType(tensor.dtype) && isFloatingPoint(tensor.dtype)) continue;
    throw new FmoeError(
      'ERR_DTYPE',
      `${operation}: ${name} must be floating-point, got ${tensor.dtype}. Convert it with .float().`,
      { op: operation, argument: name, dtypes: [tensor.dtype] },
    );
  }
}

/** The tensor has one of the given dtypes; else `ERR_DTYPE`. */
export function requireDtype(
  operation: string,
  name: string,
  tensor: Tensor,
  dtypes: readonly string[],
): void {
  if (dtypes.includes(tensor.dtype)) return;
  throw new FmoeError(
    'ERR_DTYPE',
    `${operation}: ${name} must be ${dtypes.join(' or ')}, got ${tensor.dtype}. Convert it with .to(dtype).`,
    { op: operation, argument: name, dtypes: [tensor.dtype] },
  );
}

/** `ERR_SHAPE` unless `holds`; `message` says what was expected. */
export function requireShape(operation: string, holds: boolean, message: string, ...tensors: Tensor[]): void {
  if (holds) return;
  throw new FmoeError('ERR_SHAPE', `${operation}: ${message}`, {
    op: operation,
    shapes: tensors.map((tensor) => [...tensor.shape]),
  });
}

/** `ERR_INDEX` unless `dim` names a dimension of the tensor. */
export function requireDim(operation: string, tensor: Tensor, dim: number): void {
  const last = Math.max(tensor.ndim, 1) - 1;
  if (dim >= -last - 1 && dim <= last) return;
  throw new FmoeError(
    'ERR_INDEX',
    `${operation}: dim ${dim} is out of range for a tensor of shape [${tensor.shape.join(', ')}]; ` +
      `expected ${-last - 1} to ${last}.`,
    { op: operation, argument: 'dim', shapes: [[...tensor.shape]] },
  );
}

/** A shape as it appears in a message. */
export function shapeOf(tensor: Tensor): string {
  return `[${tensor.shape.join(', ')}]`;
}

export function sameShape(a: readonly number[], b: readonly number[]): boolean {
  return a.length === b.length && a.every((size, i) => size === b[i]);
}

function given(tensors: NamedTensors): [string, Tensor][] {
  return Object.entries(tensors).filter(
    (entry): entry is [string, Tensor] => entry[1] !== null && entry[1] !== undefined,
  );
}
