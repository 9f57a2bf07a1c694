/** Shape letters: T tokens, D model width, N all experts, K top-k, R routed rows. */
import { combine, dispatch, routePlan } from '@fmoe/kernels';
import { gradcheck, manualSeed, raiseDeviceErrors, randn, tensor } from '@fmoe/torch';
import { describeEachDevice, expectAllClose } from '@fmoe/torch/testing';
import { beforeEach, expect, it } from 'vitest';
import { integers, matrix } from '../../test/gate-checks.js';
import { randomBelow } from '../../test/plain-gates.js';
import { type ExpertRoute, type Route, resolveRoute, type TokenRoute } from './route.js';

beforeEach(() => {
  manualSeed(8);
});

describeEachDevice('resolveRoute', (device) => {
  const ids = (values: number[] | number[][]) => tensor(values, { dtype: 'int64', device });
  const scores = (shape: number[]) => randn(shape, { dtype: 'float64', device });
  const context = (tokens: number, numExpert: number) => ({ tokens, numExpert, gateName: 'MyGate' });

  it('keeps a token-major route and makes its plan, unless there is one', () => {
    const topIdx = ids([
      [2, 0],
      [-1, 2],
    ]);
    const route: TokenRoute = { topIdx, topScore: scores([2, 2]) };
    const resolved = resolveRoute(route, context(2, 3));
    expect(resolved.topIdx).toBe(topIdx);
    expect(resolved.plan.counts.cpu().toArray()).toEqual([1n, 0n, 2n]);
    const plan = routePlan(topIdx, 3);
    expect(resolveRoute({ ...route, plan }, context(2, 3)).plan).toBe(plan);
  });

  /** Tokens 0 … 3, experts 0 … 2: expert 0 takes tokens 3 and 1, expert 2 tokens 0, 1 and 3. */
  const example = (): ExpertRoute => ({
    rowToken: ids([3, 1, 0, 1, 3]),
    offsets: ids([0, 2, 2, 5]),
    rowScore: scores([5]),
  });

  it('turns an expert-major route into slots, one for each expert', () => {
    const route = example();
    const { topIdx, topScore, plan } = resolveRoute(route, context(4, 3));
    expect(integers(topIdx)).toEqual([
      [-1, -1, 2],
      [0, -1, 2],
      [-1, -1, -1],
      [0, -1, 2],
    ]);
    const [a, b, c, d, e] = matrix(route.rowScore) as unknown as number[];
    expectAllClose(topScore, [
      [0, 0, c!],
      [b!, 0, d!],
      [0, 0, 0],
      [a!, 0, e!],
    ]);
    expect(plan.counts.cpu().toArray()).toEqual([2n, 0n, 3n]);
    expect(plan.rowSlot.shape).toEqual([5]);
  });

  it('computes what the rows say, and passes their gradients', () => {
    const route = example();
    const x = scores([4, 2]);
    const rowScore = route.rowScore.requiresGrad_(true);
    const run = () => {
      const { topScore, plan } = resolveRoute({ ...route, rowScore }, context(4, 3));
      return combine(dispatch(x, plan.rowSlot, plan.slotRow), topScore, plan.slotRow);
    };
    const factor = [0, 0, 0, 0];
    const score = rowScore.detach().cpu().toArray() as number[];
    [3, 1, 0, 1, 3].forEach((token, row) => {
      factor[token]! += score[row]!;
    });
    expectAllClose(
      run(),
      matrix(x).map((row, t) => row.map((value) => value * factor[t]!)),
      { rtol: 1e-12, atol: 1e-12 },
    );
    gradcheck(run, [rowScore]);
  });

  it('leaves out rows of token -1 and those past the last expert', () => {
    const route = {
      rowToken: ids([1, -1, 0, 1, -1]),
      offsets: ids([0, 2, 3]),
      rowScore: scores([5]),
    };
    const { topIdx, topScore, plan } = resolveRoute(route, context(2, 2));
    expect(integers(topIdx)).toEqual([
      [-1, 1],
      [0, -1],
    ]);
    const [first, , third] = route.rowScore.cpu().toArray() as number[];
    expectAllClose(topScore, [
      [0, third!],
      [first!, 0],
    ]);
    // Never more rows than cells.
    expect(plan.rowSlot.shape).toEqual([4]);
  });

  it('takes routes of no tokens and of no rows', () => {
    const none = { rowToken: ids([]), offsets: ids([0, 0, 0]), rowScore: scores([0]) };
    expect(resolveRoute(none, context(0, 2)).topIdx.shape).toEqual([0, 2]);
    const { topIdx, plan } = resolveRoute(none, context(2, 2));
    expect(integers(topIdx)).toEqual([
      [-1, -1],
      [-1, -1],
    ]);
    const rows = dispatch(randn([2, 3], { device }), plan.rowSlot, plan.slotRow);
    expect(rows.shape).toEqual([0, 3]);
    expect(
      combine(rows, scores([2, 2]), plan.slotRow)
        .cpu()
        .toArray(),
    ).toEqual([
      [0, 0, 0],
      [0, 0, 0],
    ]);
  });

  const wrong: [string, () => unknown, string, RegExp][] = [
    ['nothing', () => undefined, 'ERR_ARGUMENT', /no route/],
    ['arrays', () => ({ topIdx: [[0]], topScore: [[1]] }), 'ERR_ARGUMENT', /no route/],
    [
      'other numbers of tokens',
      () => ({ topIdx: ids([[0]]), topScore: scores([1, 1]) }),
      'ERR_SHAPE',
      /topIdx \[1, 1\] and topScore \[1, 1\], expected \[2, K\]/,
    ],
    [
      'scores of another shape',
      () => ({ topIdx: ids([[0], [1]]), topScore: scores([2, 2]) }),
      'ERR_SHAPE',
      /topScore \[2, 2\]/,
    ],
    ['flat ids', () => ({ topIdx: ids([0, 1]), topScore: scores([2]) }), 'ERR_SHAPE', /expected \[2, K\]/],
    [
      'ids in floating point',
      () => ({ topIdx: scores([2, 1]), topScore: scores([2, 1]) }),
      'ERR_DTYPE',
      /topIdx in float64/,
    ],
    [
      'scores in whole numbers',
      () => ({ topIdx: ids([[0], [1]]), topScore: ids([[0], [1]]) }),
      'ERR_DTYPE',
      /topScore in int64/,
    ],
    [
      'a plan of other experts',
      () => {
        const topIdx = ids([[0], [1]]);
        return { topIdx, topScore: scores([2, 1]), plan: routePlan(topIdx, 4) };
      },
      'ERR_SHAPE',
      /plan with counts \[4\], expected \[3\]/,
    ],
    [
      'offsets of other experts',
      () => ({ rowToken: ids([0]), offsets: ids([0, 1]), rowScore: scores([1]) }),
      'ERR_SHAPE',
      /offsets \[2\].*expected \[R\], \[4\]/,
    ],
    [
      'fewer scores than rows',
      () => ({ rowToken: ids([0, 1]), offsets: ids([0, 1, 2, 2]), rowScore: scores([1]) }),
      'ERR_SHAPE',
      /rowScore \[1\]/,
    ],
  ];
  it.each(wrong)('refuses %s', (_, route, code, message) => {
    expect(() => resolveRoute(route() as Route, context(2, 3))).toThrow(
      expect.objectContaining({ code, message: expect.stringMatching(message), op: 'MyGate' }),
    );
  });

  const rows = (rowToken: number[], offsets: number[]) => ({
    rowToken: ids(rowToken),
    offsets: ids(offsets),
    rowScore: scores([rowToken.length]),
  });
  // On a GPU the values are looked at when the program next reads from it.
  const values: [string, () => Route, RegExp][] = [
    [
      'an expert that does not exist',
      () => ({ topIdx: ids([[0], [3]]), topScore: scores([2, 1]) }),
      /top_?[iI]dx holds/,
    ],
    [
      'an expert below -1',
      () => ({ topIdx: ids([[0], [-2]]), topScore: scores([2, 1]) }),
      /top_?[iI]dx holds/,
    ],
    ['a token that does not exist', () => rows([2], [0, 1, 1, 1]), /rowToken outside \[-1, 2\)/],
    ['decreasing offsets', () => rows([0, 1], [0, 2, 1, 2]), /offsets that/],
    ['offsets past the rows', () => rows([0, 1], [0, 2, 3, 3]), /offsets that/],
    ['offsets that begin late', () => rows([0, 1], [1, 2, 2, 2]), /offsets that/],
    ['a token twice for one expert', () => rows([1, 1], [0, 2, 2, 2]), /more than once/],
  ];
  it.each(values)('refuses %s', (_, route, message) => {
    const run = () => {
      const { topIdx } = resolveRoute(route(), context(2, 3));
      raiseDeviceErrors();
      return topIdx;
    };
    expect(run).toThrow(
      expect.objectContaining({ code: 'ERR_INDEX', message: expect.stringMatching(message) }),
    );
    if (device === 'cpu') expect(run).toThrow(/^MyGate: /);
  });

  it('accepts every route that a random choice makes', () => {
    const random = randomBelow(11);
    for (let round = 0; round < 30; round++) {
      const [tokens, numExpert] = [random(9), 1 + random(6)];
      const chosen = Array.from({ length: numExpert }, () =>
        Array.from({ length: tokens }, (_, t) => t).filter(() => random(10) < 4),
      );
      const offsets = [0];
      for (const list of chosen) offsets.push(offsets.at(-1)! + list.length);
      const { topIdx, plan } = resolveRoute(rows(chosen.flat(), offsets), context(tokens, numExpert));
      const expected = Array.from({ length: tokens }, (_, t) =>
        chosen.map((list, e) => (list.includes(t) ? e : -1)),
      );
      expect(integers(topIdx)).toEqual(expected);
      expect((plan.counts.cpu().toArray() as bigint[]).map(Number)).toEqual(
        chosen.map((list) => list.length),
      );
    }
  });
});
