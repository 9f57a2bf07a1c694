import { FmoeError } from '../errors.js';
import { isFloatingPoint } from '../tensor/dtype.js';
import { Tensor } from '../tensor/tensor.js';
import type {
  OptimizerOptions,
  ParameterGroup,
  ParameterGroupInput,
  ParameterInput,
} from './optimizer-types.js';

/** Keys of a group that are no options of the optimizer. */
const GROUP_KEYS = new Set(['params', 'paramNames', 'initialLr']);

/** An ERR_ARGUMENT error of an optimizer. */
export function optimizerError(optimizer: string, argument: string, problem: string): FmoeError {
  return new FmoeError('ERR_ARGUMENT', `${optimizer}: ${problem}`, { op: optimizer, argument });
}

/** Refuses an option that is no number or outside its range. */
export function checkRange(
  optimizer: string,
  name: string,
  value: unknown,
  { minimum = 0, below = Number.POSITIVE_INFINITY }: { minimum?: number; below?: number } = {},
): void {
  if (typeof value === 'number' && value >= minimum && value < below) return;
  const range = below === Number.POSITIVE_INFINITY ? `${minimum} or more` : `in [${minimum}, ${below})`;
  throw optimizerError(optimizer, name, `${name} is ${String(value)}, expected a number ${range}.`);
}

/** Refuses an option that is no boolean. */
export function checkFlag(optimizer: string, name: string, value: unknown): void {
  if (typeof value === 'boolean') return;
  throw optimizerError(optimizer, name, `${name} is ${String(value)}, expected true or false.`);
}

/** The defaults with the given options over them; ERR_ARGUMENT for an option that does not exist. */
export function mergeOptions<Options extends OptimizerOptions>(
  optimizer: string,
  defaults: Options,
  given: Partial<Options>,
): Options {
  const merged = { ...defaults };
  for (const [key, value] of Object.entries(given)) {
    if (GROUP_KEYS.has(key) || value === undefined) continue;
    if (!Object.hasOwn(defaults, key)) {
      const known = Object.keys(defaults).join(', ');
      throw optimizerError(optimizer, key, `there is no option '${key}'. Options are: ${known}.`);
    }
    (merged as Record<string, unknown>)[key] = value;
  }
  return merged;
}

const isIterable = (value: unknown): value is Iterable<unknown> =>
  typeof value === 'object' && value !== null && Symbol.iterator in value;

/** Brings what a constructor was given into the form of groups. */
export function toGroups<Options extends OptimizerOptions>(
  optimizer: string,
  input: ParameterInput<Options>,
): ParameterGroupInput<Options>[] {
  if (input instanceof Tensor || !isIterable(input)) {
    throw optimizerError(
      optimizer,
      'params',
      'params must be an array or another iterable. Wrap a single tensor: [x].',
    );
  }
  const items = [...(input as Iterable<unknown>)];
  if (items.length === 0) {
    const hint = 'Does the model have parameters, and were they passed as module.parameters()?';
    throw optimizerError(optimizer, 'params', `the parameter list is empty. ${hint}`);
  }
  const isGroup = (item: unknown): boolean => !(item instanceof Tensor) && !Array.isArray(item);
  if (!items.some(isGroup)) return [{ params: items as Tensor[] } as unknown as ParameterGroupInput<Options>];
  for (const item of items) {
    if (isGroup(item) && typeof item === 'object' && item !== null && 'params' in item) continue;
    throw optimizerError(optimizer, 'params', 'every parameter group must be an object with `params`.');
  }
  return items as ParameterGroupInput<Options>[];
}

/** The tensors of a group, and their names where they came with names. */
export function readParameters(
  optimizer: string,
  params: unknown,
): { params: readonly Tensor[]; paramNames?: readonly string[] } {
  const items = params instanceof Tensor ? [params] : isIterable(params) ? [...params] : undefined;
  if (items === undefined) throw optimizerError(optimizer, 'params', '`params` of a group must be tensors.');
  const pairs = items.map((item) => (Array.isArray(item) && item.length === 2 ? item : [undefined, item]));
  const tensors = pairs.map(([name, tensor], i) => {
    checkParameter(optimizer, typeof name === 'string' ? `'${name}'` : String(i), tensor);
    return tensor as Tensor;
  });
  const names = pairs.map(([name]) => name);
  if (names.every((name) => name === undefined)) return { params: tensors };
  if (names.every((name) => typeof name === 'string')) return { params: tensors, paramNames: names };
  throw optimizerError(optimizer, 'params', 'either all parameters of a group have names, or none.');
}

function checkParameter(optimizer: string, name: string, value: unknown): void {
  if (!(value instanceof Tensor))
    throw optimizerError(optimizer, 'params', `parameter ${name} is not a tensor.`);
  const { dtype } = value;
  if (!isFloatingPoint(dtype)) {
    throw new FmoeError(
      'ERR_DTYPE',
      `${optimizer}: parameter ${name} is ${dtype}; only floating-point tensors can be optimized.`,
      {
        op: optimizer,
        argument: 'params',
        dtypes: [dtype],
      },
    );
  }
  if (value.isLeaf) return;
  const remedy = 'Pass the tensor that it was computed from, or a detached copy.';
  throw optimizerError(
    optimizer,
    'params',
    `parameter ${name} is the result of an operator, not a leaf. ${remedy}`,
  );
}

/** Refuses parameters that occur twice, in a group or in two. */
export function checkDistinct(
  optimizer: string,
  groups: readonly ParameterGroup[],
  added: readonly Tensor[],
): void {
  const seen = new Set(groups.flatMap((group) => group.params));
  added.forEach((param, i) => {
    if (seen.has(param)) {
      const remedy = 'Pass every parameter once; for shared weights use module.parameters(), which does.';
      throw optimizerError(optimizer, 'params', `parameter ${i} of the group occurs twice. ${remedy}`);
    }
    seen.add(param);
  });
}
