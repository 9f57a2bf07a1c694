import { FmoeError } from '../errors.js';
import { native } from '../native/index.js';
import { isDType, isFloatingPoint } from '../tensor/dtype.js';
import { guarded, TensorBase } from '../tensor/tensor-base.js';

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

/** In floats, a search for the next bound overflows at the ends of int64 and never ends. */
const boundsOfFloats: Precondition = (op, values, names) => {
  for (const name of ['from', 'to', 'low', 'high']) {
    const bound = values[names.indexOf(name)];
    if (typeof bound !== 'bigint' || (bound <= 2n ** 62n && bound >= -(2n ** 62n))) continue;
    const self = values[names.indexOf('self')];
    const dtype =
      self instanceof TensorBase && !self.isDisposed ? self.dtype : values[names.indexOf('dtype')];
    if (dtype !== undefined && (!isDType(dtype) || !isFloatingPoint(dtype))) continue;
    throw new FmoeError('ERR_ARGUMENT', `${op}: the bound ${bound} is beyond ±2^62`, { op, argument: name });
  }
};

/** A number for each tensor; further ones are read past the end of the list. */
const scalarForEach: Precondition = (op, values, names) => {
  const [tensors, scalars] = [
    values[names.indexOf('self')],
    values[names.indexOf('scalars')] ?? values[names.indexOf('weight')],
  ];
  if (!Array.isArray(tensors) || !Array.isArray(scalars) || tensors.length === scalars.length) return;
  throw new FmoeError('ERR_ARGUMENT', `${op}: ${scalars.length} numbers for ${tensors.length} tensors`, {
    op,
  });
};

/** LAPACK walks out of its workspace in search of the eigenvalues of what is not a number. */
const finite: Precondition = (op, values, names) => {
  const self = values[names.indexOf('self')];
  if (!(self instanceof TensorBase) || self.isDisposed || self.device === 'meta') return;
  const binding = native();
  const call = (name: string, handle: number): number =>
    binding.call(binding.findSchema(name)!.id, handle) as number;
  const flags = guarded(op, () => call('aten::isfinite', self.handle), [self]);
  const all = call('aten::all', flags);
  const holds = Boolean(call('aten::item', all));
  binding.release(flags);
  binding.release(all);
  if (holds) return;
  throw new FmoeError('ERR_ARGUMENT', `${op}: the matrix holds NaN or infinity`, {
    op,
    argument: 'self',
    shapes: [self.shape],
  });
};

/** The smallest integer has no negative, and the recursion on it no end. */
const invertible: Precondition = (op, values, names) => {
  const n = values[names.indexOf('n')];
  if (typeof n !== 'bigint' || n > -(2n ** 63n)) return;
  throw new FmoeError('ERR_ARGUMENT', `${op}: the power ${n} is out of range`, { op, argument: 'n' });
};

/** One pivot for each row or column, whichever are fewer, in every matrix: others are read past the end. */
const matchingPivots: Precondition = (op, values) => {
  const [matrices, pivots] = values;
  if (!(matrices instanceof TensorBase) || !(pivots instanceof TensorBase)) return;
  if (matrices.isDisposed || pivots.isDisposed || matrices.ndim < 2) return;
  const { shape } = matrices;
  const expected = [...shape.slice(0, -2), Math.min(...shape.slice(-2))];
  if (String(pivots.shape) === String(expected)) return;
  throw new FmoeError(
    'ERR_SHAPE',
    `${op}: the pivots of [${shape.join(', ')}] have the shape [${expected.join(', ')}], not [${pivots.shape.join(', ')}]`,
    {
      op,
      shapes: [shape, pivots.shape],
    },
  );
};

/** The fused optimizers walk over the memory of all their tensors as over that of the parameters. */
const alike: Precondition = (op, values, names) => {
  const params = values[names.indexOf('self')];
  if (!isTensors(params) || params.some(({ isDisposed }) => isDisposed)) return;
  values.forEach((list, position) => {
    const name = names[position]!;
    if (!isTensors(list) || list.some(({ isDisposed }) => isDisposed)) return;
    const fail = (problem: string): never => {
      throw new FmoeError('ERR_SHAPE', `${op}: ${name} ${problem}`, { op, argument: name });
    };
    const unused =
      (name === 'maxExpAvgSqs' && values[names.indexOf('amsgrad')] === false) ||
      (name === 'momentumBufferList' && values[names.indexOf('momentum')] === 0);
    if (list.length !== params.length && !(unused && list.length === 0)) {
      fail(`has ${list.length} tensors for ${params.length} parameters`);
    }
    list.forEach((tensor, i) => {
      const param = params[i]!;
      if (name === 'stateSteps') {
        if (tensor.numel() !== 1) fail(`[${i}] has ${tensor.numel()} elements, not 1`);
        return;
      }
      if (
        String(tensor.shape) !== String(param.shape) ||
        tensor.dtype !== param.dtype ||
        !tensor.isContiguous()
      ) {
        fail(`[${i}] must be ${param.dtype}[${param.shape.join(', ')}] and contiguous`);
      }
    });
  });
};

const isTensors = (value: unknown): value is TensorBase[] =>
  Array.isArray(value) && value.every((item) => item instanceof TensorBase);

const preconditions: readonly (readonly [RegExp, Precondition])[] = [
  [/^aten::(arange|range)(\.|$)/, wholeStep],
  [/^aten::(random|randint|randint_like)_?(\.|$)/, boundsOfFloats],
  [/^aten::_foreach_.*\.ScalarList/, scalarForEach],
  [/^aten::lu_unpack(\.|$)/, matchingPivots],
  [/^aten::_fused_(adamw?|sgd|adagrad)_/, alike],
  [/^aten::linalg_eigvals(\.|$)/, finite],
  [/^aten::(linalg_)?matrix_power(\.|$)/, invertible],
];

/** What to check before a call, or undefined. */
export function preconditionOf(name: string): Precondition | undefined {
  return preconditions.find(([pattern]) => pattern.test(name))?.[1];
}
