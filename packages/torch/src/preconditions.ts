import { isDType, isFloatingPoint } from './dtype.js';
import { FmoeError } from './errors.js';
import { TensorBase } from './tensor-base.js';

/*
 * What libtorch forgets to check before it crashes the process. Each is looked up once, when its operator is bound, so
 * that all others pay nothing.
 */

/** Throws when the arguments, in schema order, would crash the operator. */
export type Precondition = (op: string, values: readonly unknown[], names: readonly string[]) => void;

/** In integers a step such as 0.5 becomes 0, and the number of steps is a division by it. */
const wholeStep: Precondition = (op, values, names) => {
  const step = values[names.indexOf('step')];
  const dtype = values[names.indexOf('dtype')];
  const out = values[names.indexOf('out')];
  const target = out instanceof TensorBase ? out.dtype : dtype;
  if (typeof step !== 'number' || Number.isInteger(step) || !isDType(target) || isFloatingPoint(target))
    return;
  throw new FmoeError(
    'ERR_ARGUMENT',
    `${op}: the step ${step} is not an integer, but the dtype is ${target}`,
    {
      op,
      argument: 'step',
    },
  );
};

const preconditions: readonly (readonly [RegExp, Precondition])[] = [
  [/^aten::(arange|range)(\.|$)/, wholeStep],
];

/** What to check before a call, or undefined. */
export function preconditionOf(name: string): Precondition | undefined {
  return preconditions.find(([pattern]) => pattern.test(name))?.[1];
}
