import { describeValue } from '../describe.js';
import { checkDevice } from '../devices/device.js';
import { FmoeError, type FmoeErrorCode } from '../errors.js';
import { type ArgumentSchema, native, type OperatorSchema, type ReturnSchema } from '../native/index.js';
import { Generator } from '../random/generator.js';
import { dtypeCode, dtypes, isDType } from '../tensor/dtype.js';
import type { Tensor } from '../tensor/tensor.js';
import { handlesOf, TensorBase, toFmoeError, wrap } from '../tensor/tensor-base.js';
import { preconditionOf } from './preconditions.js';
import { refusal } from './unsafe-operators.js';

export { describeValue };

/** A number for an operator: an integral number is an integer, as JavaScript has no `1.0`. */
export type Scalar = number | bigint | boolean;

/** An operator that was looked up once. Its result is a tensor, a number …, or an array of them as the schema says. */
export interface BoundOperator {
  // biome-ignore lint/suspicious/noExplicitAny: what comes back depends on a schema that is known at run time only
  (...args: unknown[]): any;
  readonly schema: OperatorSchema;
  /** @internal The call with its arguments in an array, which is not kept. */
  // biome-ignore lint/suspicious/noExplicitAny: as above
  readonly invoke: (args: unknown[]) => any;
}

const bound = new Map<string, BoundOperator>();

/** A list crosses element by element, and a call with more arguments than the stack holds is a RangeError. */
const longestCall = 10_000;

/**
 * The dispatcher's operator of a name, ready to be called: `op('aten::add.Tensor')(x, y, { alpha: 2 })`.
 *
 * Arguments come in schema order; a trailing plain object gives any of them by its camelCase name. `null` is None, and
 * what is left out takes the schema's default. Works for every operator of libtorch and of libraries that were opened with
 * {@link loadLibrary}.
 *
 * @param name namespace, name and overload: `aten::add.Tensor`, `fmoe::dispatch`
 * @throws FmoeError `ERR_UNKNOWN_OP` when no library has registered it; `ERR_NOT_IMPLEMENTED` when one of its types has no
 * JavaScript form, or when it is one of libtorch's inner operators that trust their arguments blindly.
 */
export function op(name: string): BoundOperator {
  let operator = bound.get(name);
  if (operator === undefined) {
    operator = bind(name);
    bound.set(name, operator);
  }
  return operator;
}

function bind(name: string): BoundOperator {
  if (typeof name !== 'string') {
    throw new FmoeError(
      'ERR_ARGUMENT',
      `op(): expected the name of an operator, got ${describeValue(name)}`,
      { op: 'op' },
    );
  }
  const schema = native().findSchema(name);
  if (schema === null) {
    throw new FmoeError(
      'ERR_UNKNOWN_OP',
      `no operator '${name}'. Overloads are part of the name, as in 'aten::add.Tensor'; ` +
        'operators of a library exist once loadLibrary() has opened it.',
      { op: name },
    );
  }
  if (!schema.callable) {
    throw new FmoeError(
      'ERR_NOT_IMPLEMENTED',
      `'${name}' takes or returns a type that has no JavaScript form`,
      { op: name },
    );
  }
  const reason = refusal(name);
  if (reason !== undefined) {
    throw new FmoeError('ERR_NOT_IMPLEMENTED', `'${name}' cannot be called from JavaScript: ${reason}`, {
      op: name,
    });
  }
  const writers = schema.arguments.map((argument) => writerOf(name, argument));
  const names = schema.arguments.map((argument) => camelCase(argument.name));
  const check = preconditionOf(name);
  const unwrap = resultReader(schema.returns);
  const { id } = schema;

  const invoke = (args: unknown[]): unknown => {
    const last = args.length - 1;
    const values = last >= 0 && isOptions(args[last]) ? placeOptions(name, schema, args) : args;
    if (values.length > writers.length) {
      throw new FmoeError(
        'ERR_ARGUMENT',
        `${name}: takes at most ${writers.length} arguments, got ${values.length}`,
        { op: name },
      );
    }
    if (check !== undefined) check(name, values, names);
    const flat: unknown[] = [];
    for (let i = 0; i < values.length; i++) writers[i]!(flat, values[i]);
    try {
      return unwrap(native().call(id, ...flat), values);
    } catch (error) {
      throw error instanceof RangeError && flat.length > longestCall
        ? new FmoeError('ERR_ARGUMENT', `${name}: ${flat.length} numbers are too many for one call`, {
            op: name,
            cause: error,
          })
        : toFmoeError(error, name, values, names);
    }
  };
  return Object.assign((...args: unknown[]): unknown => invoke(args), { schema, invoke });
}

// --- arguments --------------------------------------------------------------------------------------------------

type Writer = (flat: unknown[], value: unknown) => void;

/** Puts one argument into the flat form that call.cpp reads. */
function writerOf(op: string, argument: ArgumentSchema): Writer {
  const optional = argument.type.endsWith('?');
  const type = optional ? argument.type.slice(0, -1) : argument.type;
  const write = writers[type] ?? writePlain;
  const reject: Reject = (expected, value, code = 'ERR_ARGUMENT') => {
    throw new FmoeError(
      code,
      `${op}: argument '${argument.name}' must be ${expected}, got ${describeValue(value)}`,
      { op, argument: argument.name },
    );
  };
  if (type === 'Tensor') {
    // The hottest path: no closure beyond this one.
    return (flat, value) => {
      if (value instanceof TensorBase) flat.push(value.handle);
      else if (value === undefined || value === null) flat.push(value);
      else reject('a tensor', value);
    };
  }
  return (flat, value) => {
    if (value === undefined || value === null) flat.push(value);
    else write(flat, value, argument, reject, op);
  };
}

type Reject = (expected: string, value: unknown, code?: FmoeErrorCode) => never;

type TypeWriter = (
  flat: unknown[],
  value: unknown,
  argument: ArgumentSchema,
  reject: Reject,
  op: string,
) => void;

const writePlain: TypeWriter = (flat, value, _argument, reject) => {
  if (typeof value === 'object' || typeof value === 'function') reject('a plain value', value);
  flat.push(value);
};

const writeTensorList: TypeWriter = (flat, value, argument, reject) => {
  if (!Array.isArray(value)) reject('an array of tensors', value);
  const list = value as unknown[];
  const nullable = argument.type.startsWith('Tensor?[]');
  for (const item of list) {
    if (!(item instanceof TensorBase) && !(nullable && (item === null || item === undefined))) {
      reject('an array of tensors', item);
    }
  }
  flat.push(handlesOf(list as (TensorBase | null)[]));
};

const writeNumberList: TypeWriter = (flat, value, argument, reject) => {
  if (typeof value === 'number' || typeof value === 'bigint') {
    if (argument.fixedLength === 0) reject('an array of numbers', value);
    flat.push(1, value);
    return;
  }
  if (!Array.isArray(value) && !ArrayBuffer.isView(value)) reject('an array', value);
  const list = value as ArrayLike<unknown>;
  flat.push(list.length);
  for (let i = 0; i < list.length; i++) flat.push(list[i]);
};

const writeOneOf =
  (codes: Readonly<Record<string, number>>): TypeWriter =>
  (flat, value, _argument, reject) => {
    const code = typeof value === 'string' ? codes[value] : undefined;
    flat.push(code ?? reject(`one of ${Object.keys(codes).join(', ')}`, value));
  };

const writers: Readonly<Record<string, TypeWriter>> = {
  'Tensor[]': writeTensorList,
  'Tensor?[]': writeTensorList,
  'int[]': writeNumberList,
  'SymInt[]': writeNumberList,
  'float[]': writeNumberList,
  'bool[]': writeNumberList,
  'Scalar[]': writeNumberList,
  ScalarType: (flat, value, _argument, reject) =>
    flat.push(isDType(value) ? dtypeCode(value) : reject(`one of ${dtypes.join(', ')}`, value, 'ERR_DTYPE')),
  Device: (flat, value, _argument, _reject, op) => flat.push(checkDevice(op, value)),
  Layout: writeOneOf({ strided: 0 }),
  MemoryFormat: writeOneOf({ contiguous: 0, preserve: 1, channels_last: 2, channels_last_3d: 3 }),
  Generator: (flat, value, _argument, reject) =>
    flat.push(value instanceof Generator ? value.id : reject('a Generator', value)),
};

/** A plain object is the bag of named arguments; tensors, arrays and generators are values. */
export function isOptions(value: unknown): value is Record<string, unknown> {
  if (typeof value !== 'object' || value === null || value instanceof TensorBase || Array.isArray(value))
    return false;
  const prototype: unknown = Object.getPrototypeOf(value);
  return prototype === Object.prototype || prototype === null;
}

const optionNames = new WeakMap<OperatorSchema, Map<string, number>>();

/** Arguments in schema order, with those of the trailing options object in their places. */
function placeOptions(op: string, schema: OperatorSchema, args: readonly unknown[]): unknown[] {
  let positions = optionNames.get(schema);
  if (positions === undefined) {
    positions = new Map(schema.arguments.map((argument, i) => [camelCase(argument.name), i]));
    optionNames.set(schema, positions);
  }
  const values = args.slice(0, -1);
  for (const [name, value] of Object.entries(args.at(-1) as Record<string, unknown>)) {
    const position = positions.get(name);
    if (position === undefined) {
      throw new FmoeError(
        'ERR_ARGUMENT',
        `${op}: unknown option '${name}'. Options are: ${[...positions.keys()].join(', ')}`,
        { op, argument: name },
      );
    }
    if (position < args.length - 1) {
      throw new FmoeError('ERR_ARGUMENT', `${op}: '${name}' is given twice`, { op, argument: name });
    }
    while (values.length <= position) values.push(undefined);
    values[position] = value;
  }
  return values;
}

/** `index_select` → `indexSelect`; a trailing underscore, the mark of in-place operators, stays. */
export function camelCase(name: string): string {
  return name.replace(/(?!^)_+([a-z0-9])/g, (_, letter: string) => letter.toUpperCase());
}

// --- results ----------------------------------------------------------------------------------------------------

type ResultReader = (raw: unknown, args: readonly unknown[]) => unknown;

function resultReader(returns: readonly ReturnSchema[]): ResultReader {
  if (returns.length === 0) return () => undefined;
  if (returns.length === 1) {
    const [result] = returns;
    const { aliasOf } = result!;
    if (aliasOf >= 0) return (_raw, args) => changed(args[aliasOf] as Tensor);
    const read = readerOf(result!);
    return (raw) => read(raw);
  }
  const readers = returns.map(readerOf);
  return (raw, args) =>
    readers.map((read, i) => {
      const { aliasOf } = returns[i]!;
      return aliasOf >= 0 ? changed(args[aliasOf] as Tensor) : read((raw as unknown[])[i]);
    });
}

function readerOf(result: ReturnSchema): (raw: unknown) => unknown {
  if (result.type === 'Tensor') return wrapOptional;
  if (result.type === 'Tensor[]') return (raw) => (raw as number[]).map(wrapOptional);
  return (raw) => raw;
}

const wrapOptional = (raw: unknown): Tensor | null => (raw === 0 ? null : wrap(raw as number));

/** An in-place operator gives back the tensor that it changed, as in PyTorch. */
function changed(tensor: Tensor): Tensor {
  tensor.forgetShape();
  return tensor;
}
