/** Shape letters: T tokens, N all experts, K choices a token, R routed rows. */
import { type RoutePlan, routePlan } from '@fmoe/kernels';
import { arange, FmoeError, flagOnDevice, full, Tensor, where, zeros } from '@fmoe/torch';

/** Each token names its experts, as top-k gates do. */
export interface TokenRoute {
  /** Experts of each token `[T, K]`, int64; -1 drops the slot. K is the gate's to choose. */
  topIdx: Tensor;
  /** Factors of the experts' outputs `[T, K]`, floating-point, differentiable. */
  topScore: Tensor;
  /** The plan of `topIdx`, when the gate has already made it to count the experts' loads. */
  plan?: RoutePlan;
}

/**
 * Each expert names its tokens, as in expert choice: a token may have any number of experts, none included, and names
 * each of them once. Rows past the last expert's, and those of token -1, are padding.
 */
export interface ExpertRoute {
  /** The token of each row `[R]`, int64, the rows of an expert next to each other, experts in order. */
  rowToken: Tensor;
  /** `[N+1]` int64: expert e has the rows `offsets[e]` to `offsets[e+1] - 1`. */
  offsets: Tensor;
  /** Factors of the experts' outputs `[R]`, floating-point, differentiable. */
  rowScore: Tensor;
}

/** What a gate decides for T tokens, in either form. */
export type Route = TokenRoute | ExpertRoute;

/** What a layer runs on. */
export interface ResolvedRoute extends TokenRoute {
  plan: RoutePlan;
}

/** What a route must fit. */
export interface RouteContext {
  /** Number of tokens T that the gate was given. */
  tokens: number;
  /** Number of all experts N. */
  numExpert: number;
  /** The gate's class, for messages. */
  gateName: string;
}

/**
 * Checks what a gate returned and brings it into the form that a layer runs on. An expert-major route becomes one of
 * K = N slots a token, slot e for expert e, with no more rows than it had.
 *
 * Nothing is read back from a GPU: there, values out of range act as dropped slots and the error comes at the next read.
 *
 * @throws FmoeError `ERR_ARGUMENT` for what is no route, `ERR_SHAPE`, `ERR_DTYPE` or `ERR_DEVICE` for tensors that do not
 * fit, `ERR_INDEX` for experts, tokens or offsets out of range, each with the gate's class.
 */
export function resolveRoute(route: Route, context: RouteContext): ResolvedRoute {
  const given: unknown = route;
  if (holdsTensors(given, ['topIdx', 'topScore'])) return resolveTokens(route as TokenRoute, context);
  if (holdsTensors(given, ['rowToken', 'offsets', 'rowScore']))
    return resolveRows(route as ExpertRoute, context);
  throw new FmoeError(
    'ERR_ARGUMENT',
    `${context.gateName}: forward returned no route, expected { topIdx, topScore } or { rowToken, offsets, rowScore }, all tensors.`,
    { op: context.gateName, argument: 'gate' },
  );
}

function holdsTensors(value: unknown, names: readonly string[]): boolean {
  if (typeof value !== 'object' || value === null) return false;
  return names.every((name) => (value as Record<string, unknown>)[name] instanceof Tensor);
}

function resolveTokens({ topIdx, topScore, plan }: TokenRoute, context: RouteContext): ResolvedRoute {
  const { tokens, numExpert, gateName } = context;
  const [index, score] = [topIdx.shape, topScore.shape];
  const fits = index.length === 2 && index[0] === tokens && index[1]! > 0;
  if (!fits || score.length !== 2 || score[0] !== tokens || score[1] !== index[1]) {
    const got = `topIdx [${index.join(', ')}] and topScore [${score.join(', ')}]`;
    throw shapeError(context, `${got}, expected [${tokens}, K] for both`, [index, score]);
  }
  checkKinds(context, 'topIdx', topIdx, 'topScore', topScore);
  if (plan) {
    checkPlan(plan, index as [number, number], context);
    return { topIdx, topScore, plan };
  }
  return { topIdx, topScore, plan: named(gateName, () => routePlan(topIdx, numExpert)) };
}

function checkPlan(plan: RoutePlan, [tokens, choices]: [number, number], context: RouteContext): void {
  const { numExpert } = context;
  const expected = { counts: [numExpert], offsets: [numExpert + 1], slotRow: [tokens, choices] };
  for (const name of ['counts', 'offsets', 'slotRow'] as const) {
    const { shape } = plan[name];
    if (shape.join() === expected[name].join()) continue;
    const problem = `a plan with ${name} [${shape.join(', ')}], expected [${expected[name].join(', ')}]`;
    throw shapeError(context, problem, [shape]);
  }
}

function resolveRows(route: ExpertRoute, context: RouteContext): ResolvedRoute {
  const { tokens, numExpert, gateName } = context;
  const { rowToken, offsets, rowScore } = route;
  const shapes = [rowToken.shape, offsets.shape, rowScore.shape];
  const rows = rowToken.shape[0] ?? 0;
  const wanted = [[rows], [numExpert + 1], [rows]];
  if (shapes.some((shape, i) => shape.join() !== wanted[i]!.join())) {
    const [a, b, c] = shapes.map((shape) => `[${shape.join(', ')}]`);
    const got = `rowToken ${a}, offsets ${b} and rowScore ${c}`;
    throw shapeError(context, `${got}, expected [R], [${numExpert + 1}] and [R]`, shapes);
  }
  checkKinds(context, 'rowToken', rowToken, 'rowScore', rowScore);
  checkKinds(context, 'offsets', offsets, 'rowScore', rowScore);
  const { device } = rowToken;
  const indices = { dtype: 'int64', device } as const;
  const starts = offsets.narrow(0, 0, numExpert);
  const ends = offsets.narrow(0, 1, numExpert);
  refuseWhere(
    ends
      .lt(starts)
      .any()
      .logicalOr(starts.narrow(0, 0, 1).ne(0))
      .logicalOr(ends.narrow(0, numExpert - 1, 1).gt(rows)),
    context,
    `offsets that do not begin with 0, decrease, or end past the last of ${rows} rows`,
  );
  refuseWhere(
    rowToken.lt(-1).logicalOr(rowToken.ge(tokens)),
    context,
    `a rowToken outside [-1, ${tokens}), the number of tokens`,
  );

  const expert = arange(rows, indices).bucketize(ends.contiguous(), { right: true });
  const isRow = expert.lt(numExpert).logicalAnd(rowToken.ge(0)).logicalAnd(rowToken.lt(tokens));
  // Padding rows share one cell past the last, which is cut off.
  const cells = tokens * numExpert;
  const cell = where(isRow, rowToken.mul(numExpert).add(expert), cells);
  const shape = [tokens, numExpert];
  const topIdx = full([cells + 1], -1, indices)
    .scatter(0, cell, expert)
    .narrow(0, 0, cells)
    .view(shape);
  const topScore = zeros([cells + 1], { dtype: rowScore.dtype, device })
    .scatter(0, cell, rowScore)
    .narrow(0, 0, cells)
    .view(shape);
  const plan = named(gateName, () => routePlan(topIdx, numExpert));
  refuseWhere(
    plan.counts.sum().ne(isRow.sum()),
    context,
    'a token more than once among the rows of one expert',
  );
  const rowSlot = plan.rowSlot.narrow(0, 0, Math.min(rows, cells));
  return { topIdx, topScore, plan: { ...plan, rowSlot } };
}

/** Int64 indices and floating-point scores on one device. */
function checkKinds(
  { gateName }: RouteContext,
  indexName: string,
  index: Tensor,
  scoreName: string,
  score: Tensor,
): void {
  if (index.dtype !== 'int64' || !score.dtype.includes('float')) {
    throw new FmoeError(
      'ERR_DTYPE',
      `${gateName}: forward returned ${indexName} in ${index.dtype} and ${scoreName} in ${score.dtype}, expected int64 and a floating-point dtype.`,
      { op: gateName, argument: 'gate', dtypes: [index.dtype, score.dtype] },
    );
  }
  if (index.device !== score.device) {
    throw new FmoeError(
      'ERR_DEVICE',
      `${gateName}: forward returned ${indexName} on ${index.device} and ${scoreName} on ${score.device}, expected one device.`,
      { op: gateName, argument: 'gate', devices: [index.device, score.device] },
    );
  }
}

function shapeError({ gateName }: RouteContext, problem: string, shapes: (readonly number[])[]): FmoeError {
  return new FmoeError('ERR_SHAPE', `${gateName}: forward returned ${problem}.`, {
    op: gateName,
    argument: 'gate',
    shapes,
  });
}

/** Throws where any element of `bad` is true: at once on the CPU, at the next read on a GPU. */
function refuseWhere(bad: Tensor, { gateName }: RouteContext, problem: string): void {
  const error = () =>
    new FmoeError('ERR_INDEX', `${gateName}: forward returned ${problem}.`, {
      op: gateName,
      argument: 'gate',
    });
  if (bad.device !== 'cpu') flagOnDevice(`${gateName}: ${problem}`, bad, error);
  else if (bad.any().item()) throw error();
}

/** Runs an operator and puts the gate's class before what it has to say about the gate's choice. */
function named<Result>(gateName: string, body: () => Result): Result {
  try {
    return body();
  } catch (error) {
    if (!(error instanceof FmoeError)) throw error;
    const { code, message, cause } = error;
    const problem = cause instanceof Error ? cause.message : message;
    throw new FmoeError(code, `${gateName}: ${problem}`, { op: gateName, argument: 'gate', cause: error });
  }
}
