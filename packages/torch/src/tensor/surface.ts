import { describeValue } from '../describe.js';
import { type BoundOperator, camelCase, isOptions, op, type Scalar } from '../dispatch/op.js';
import { FmoeError } from '../errors.js';
import { overloads } from '../generated/overloads.js';
import type { ArgumentSchema, OperatorSchema } from '../native/index.js';
import { Generator } from '../random/generator.js';
import { TensorBase } from './tensor-base.js';

/*
 * The typed surface at run time. A name such as `add` stands for one or more overloads of the dispatcher
 * (generated/overloads.ts); the first one that the arguments fit is called. Nothing is bound before its first use.
 */

// biome-ignore lint/suspicious/noExplicitAny: typed by the generated declarations
type AnyFunction = (...args: any[]) => any;
/** A call with its arguments in an array: one array from the user's call down to the addon. */
type Invoke = (args: unknown[]) => unknown;

/** The function of a name of the generated surface. */
export function surfaceFunction(name: string): AnyFunction {
  let invoke: Invoke | undefined;
  return (...args: unknown[]) => {
    invoke ??= resolve(name);
    return invoke(args);
  };
}

/** Gives a tensor class the methods of the generated surface. */
export function installMethods(prototype: object, names: readonly string[]): void {
  for (const name of names) {
    let invoke: Invoke | undefined;
    Object.defineProperty(prototype, name, {
      value(this: unknown, ...rest: unknown[]) {
        invoke ??= resolve(name);
        const args = [this];
        for (let i = 0; i < rest.length; i++) args.push(rest[i]);
        return invoke(args);
      },
      configurable: true,
      writable: true,
    });
  }
}

function resolve(name: string): Invoke {
  const candidates = overloads[name]!.split(' ').map((overload) => op(`aten::${overload}`));
  if (candidates.length === 1) return candidates[0]!.invoke;
  const decided = new Map<number, Invoke>();
  return (args) => {
    const kinds = kindsOf(args);
    const known = decided.get(kinds);
    if (known !== undefined) return known(args);
    for (const { schema, invoke } of candidates) {
      if (!accepts(schema, args)) continue;
      if (kinds !== undecidable) decided.set(kinds, invoke);
      return invoke(args);
    }
    throw noOverload(name, candidates, args);
  };
}

/** Arguments whose overload depends on more than their kinds: arrays and options. */
const undecidable = -1;

/** The kinds of all arguments in one number: equal kinds always take the same overload. */
function kindsOf(args: readonly unknown[]): number {
  if (args.length > 8) return undecidable;
  let kinds = 1;
  for (const value of args) {
    let kind: number;
    if (value instanceof TensorBase) kind = 1;
    else if (typeof value === 'number') kind = Number.isInteger(value) ? 2 : 3;
    else if (typeof value === 'boolean') kind = 4;
    else if (typeof value === 'string') kind = 5;
    else if (value === null) kind = 6;
    else if (value === undefined) kind = 7;
    else return undecidable;
    kinds = kinds * 8 + kind;
  }
  return kinds;
}

function noOverload(name: string, candidates: readonly BoundOperator[], args: readonly unknown[]): FmoeError {
  const forms = candidates.map(
    ({ schema }) => `  ${name}(${schema.arguments.map(describeArgument).join(', ')})`,
  );
  return new FmoeError(
    'ERR_ARGUMENT',
    `${name}: no form takes (${args.map(describeValue).join(', ')}). Its forms are:\n${forms.join('\n')}`,
    { op: name },
  );
}

const describeArgument = ({ name, type, hasDefault }: ArgumentSchema): string =>
  `${camelCase(name)}${hasDefault ? '?' : ''}: ${type}`;

function accepts(schema: OperatorSchema, args: readonly unknown[]): boolean {
  const last = args.length - 1;
  const options = last >= 0 && isOptions(args[last]) ? (args[last] as Record<string, unknown>) : undefined;
  const positional = options === undefined ? args.length : last;
  const parameters = schema.arguments;
  if (positional > parameters.length) return false;
  let named = 0;
  for (let i = 0; i < parameters.length; i++) {
    const parameter = parameters[i]!;
    let value: unknown;
    if (i < positional) {
      // As in Python, what is keyword-only comes by name, so that `max(x, y)` never fills an option.
      if (parameter.keywordOnly) return false;
      value = args[i];
    } else if (options !== undefined) {
      const name = camelCase(parameter.name);
      if (Object.hasOwn(options, name)) {
        named++;
        value = options[name];
      }
    }
    if (!fits(value, parameter)) return false;
  }
  return options === undefined || named === Object.keys(options).length;
}

function fits(value: unknown, parameter: ArgumentSchema): boolean {
  if (value === undefined) return parameter.hasDefault;
  const optional = parameter.type.endsWith('?');
  if (value === null) return optional;
  const type = optional ? parameter.type.slice(0, -1) : parameter.type;
  return tests[type]?.(value, parameter) ?? false;
}

const isScalar = (value: unknown): value is Scalar =>
  typeof value === 'number' || typeof value === 'bigint' || typeof value === 'boolean';
const isInteger = (value: unknown): boolean =>
  typeof value === 'bigint' || (typeof value === 'number' && Number.isInteger(value));
const isNumber = (value: unknown): boolean => typeof value === 'number' || typeof value === 'bigint';
const isString = (value: unknown): boolean => typeof value === 'string';
const isTensorArray = (value: unknown): boolean =>
  Array.isArray(value) && value.every((item) => item === null || item instanceof TensorBase);

const listOf =
  (element: (value: unknown) => boolean) =>
  (value: unknown, { fixedLength }: ArgumentSchema): boolean =>
    Array.isArray(value) ? value.every(element) : fixedLength > 0 && element(value);

const tests: Readonly<Record<string, (value: unknown, parameter: ArgumentSchema) => boolean>> = {
  Tensor: (value) => value instanceof TensorBase,
  'Tensor[]': isTensorArray,
  'Tensor?[]': isTensorArray,
  int: isInteger,
  SymInt: isInteger,
  'int[]': listOf(isInteger),
  'SymInt[]': listOf(isInteger),
  float: isNumber,
  'float[]': listOf(isNumber),
  bool: (value) => typeof value === 'boolean',
  'bool[]': listOf((value) => typeof value === 'boolean'),
  Scalar: isScalar,
  'Scalar[]': listOf(isScalar),
  str: isString,
  ScalarType: isString,
  Layout: isString,
  Device: isString,
  MemoryFormat: isString,
  Generator: (value) => value instanceof Generator,
};
