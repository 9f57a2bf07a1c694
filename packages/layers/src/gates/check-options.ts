import { FmoeError } from '@fmoe/torch';

/** Options with defaults for those that are left out; one that is given as undefined is left out. */
export function withDefaults<Options extends object>(
  defaults: Partial<NoInfer<Options>>,
  options: Options,
): Options {
  const given = Object.entries(options ?? {}).filter(([, value]) => value !== undefined);
  return { ...defaults, ...(Object.fromEntries(given) as Options) };
}

/** A finite number of at least 0, or with `above` more than that, else `ERR_ARGUMENT` with the gate's and the option's name. */
export function checkNumber(
  owner: string,
  option: string,
  value: number,
  above = Number.NEGATIVE_INFINITY,
): number {
  if (Number.isFinite(value) && value >= 0 && value > above) return value;
  const expected = above === 0 ? 'a positive number' : 'a number of at least 0';
  throw new FmoeError('ERR_ARGUMENT', `${owner}: ${option} must be ${expected}, got ${String(value)}.`, {
    op: owner,
    argument: option,
  });
}

/** A number in [0, 1), or with `closed` in [0, 1]. */
export function checkFraction(owner: string, option: string, value: number, closed = false): number {
  if (value >= 0 && (value < 1 || (closed && value === 1))) return value;
  const range = closed ? '[0, 1]' : '[0, 1)';
  throw new FmoeError('ERR_ARGUMENT', `${owner}: ${option} must be in ${range}, got ${String(value)}.`, {
    op: owner,
    argument: option,
  });
}

/** One of the given values. */
export function checkOneOf<Value>(
  owner: string,
  option: string,
  value: Value,
  allowed: readonly Value[],
): Value {
  if (allowed.includes(value)) return value;
  throw new FmoeError(
    'ERR_ARGUMENT',
    `${owner}: ${option} must be one of ${allowed.map((each) => `'${String(each)}'`).join(', ')}, got '${String(value)}'.`,
    { op: owner, argument: option },
  );
}

/** The number of choices of a gate that is defined for one number alone. */
export function checkFixedTopK(owner: string, topK: number, only: number): void {
  if (topK === only) return;
  throw new FmoeError(
    'ERR_ARGUMENT',
    `${owner}: a token has exactly ${only} ${only === 1 ? 'expert' : 'experts'} here, got topK ${topK}. Set topK to ${only}, or take TopKGate.`,
    { op: owner, argument: 'topK' },
  );
}
