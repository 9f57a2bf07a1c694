import * as torch from '@fmoe/torch';
import { describe, expect, it } from 'vitest';
import { draw, expectSums, floatingDtypes, indices, type Matrix, matrix, numbers } from '../test/support.js';
import { groupedLinear } from './grouped-linear.js';

/** Row counts of each expert, and padding rows behind them. */
const groups = [
  { name: 'even', counts: [3, 3], padding: 0 },
  { name: 'ragged, with empty experts', counts: [0, 4, 1, 0, 2], padding: 3 },
  { name: 'all rows on one', counts: [0, 6, 0], padding: 0 },
  { name: 'one expert', counts: [5], padding: 1 },
  { name: 'padding only', counts: [0, 0], padding: 4 },
  { name: 'no rows', counts: [0, 0], padding: 0 },
];

const offsetsOf = (counts: number[]): number[] =>
  Array.from({ length: counts.length + 1 }, (_, e) => counts.slice(0, e).reduce((a, b) => a + b, 0));

/** The expert of each row; undefined for padding. */
const ownersOf = (counts: number[]): number[] =>
  counts.flatMap((count, e) => new Array<number>(count).fill(e));

interface Arrays {
  x: Matrix;
  weight: number[];
  bias: number[];
  upstream: Matrix;
}

/** Output and gradients from their definitions, one product at a time. */
function bruteForce(
  { x, weight, bias, upstream }: Arrays,
  counts: number[],
  inputs: number,
  outputs: number,
) {
  const owners = ownersOf(counts);
  const at = (e: number, o: number, i: number) => (e * outputs + o) * inputs + i;
  const y = x.map(() => new Array<number>(outputs).fill(0));
  const gx = x.map(() => new Array<number>(inputs).fill(0));
  const gw = weight.map(() => 0);
  const gb = bias.map(() => 0);
  owners.forEach((e, r) => {
    for (let o = 0; o < outputs; o++) {
      const g = upstream[r]![o]!;
      y[r]![o]! += bias[e * outputs + o]!;
      gb[e * outputs + o]! += g;
      for (let i = 0; i < inputs; i++) {
        y[r]![o]! += x[r]![i]! * weight[at(e, o, i)]!;
        gx[r]![i]! += g * weight[at(e, o, i)]!;
        gw[at(e, o, i)]! += g * x[r]![i]!;
      }
    }
  });
  return { y: y.flat(), gx: gx.flat(), gw, gb };
}

const absolute = ({ x, weight, bias, upstream }: Arrays): Arrays => ({
  x: x.map((row) => row.map(Math.abs)),
  weight: weight.map(Math.abs),
  bias: bias.map(Math.abs),
  upstream: upstream.map((row) => row.map(Math.abs)),
});

describe('groupedLinear', () => {
  for (const dtype of floatingDtypes) {
    for (const [inputs, outputs] of [
      [1, 2],
      [7, 5],
      [16, 33],
    ] as const) {
      for (const withBias of [true, false]) {
        const shape = `${inputs} to ${outputs}${withBias ? ' with bias' : ''}`;
        it.each(groups)(
          `is a linear layer for each expert: $name, ${dtype}, ${shape}`,
          ({ counts, padding }) => {
            torch.tidy(() => {
              const rowCount = ownersOf(counts).length + padding;
              const x = draw([rowCount, inputs], dtype);
              const weight = draw([counts.length, outputs, inputs], dtype);
              const bias = withBias ? draw([counts.length, outputs], dtype) : null;
              const upstream = draw([rowCount, outputs], dtype).detach();
              const y = groupedLinear(x, weight, bias, indices(offsetsOf(counts)));
              expect(y.dtype).toBe(dtype);
              expect(y.shape).toEqual([rowCount, outputs]);
              const leaves = bias ? [x, weight, bias] : [x, weight];
              const grads = torch.grad([y], leaves, { gradOutputs: [upstream] }) as torch.Tensor[];

              const arrays: Arrays = {
                x: matrix(x),
                weight: numbers(weight),
                bias: bias ? numbers(bias) : new Array<number>(counts.length * outputs).fill(0),
                upstream: matrix(upstream),
              };
              const exact = bruteForce(arrays, counts, inputs, outputs);
              const size = bruteForce(absolute(arrays), counts, inputs, outputs);
              const most = Math.max(...counts);
              expectSums(y, exact.y, size.y, inputs + 1);
              expectSums(grads[0]!, exact.gx, size.gx, outputs);
              expectSums(grads[1]!, exact.gw, size.gw, most);
              if (bias) expectSums(grads[2]!, exact.gb, size.gb, most);
            });
          },
        );
      }
    }
  }

  it('agrees with the same layer on one expert at a time when threads share the work', () => {
    const threads = torch.getNumThreads();
    torch.setNumThreads(2);
    try {
      torch.tidy(() => {
        const counts = [700, 0, 3, 500];
        const offsets = offsetsOf(counts);
        const x = draw([1203, 40]);
        const weight = draw([4, 50, 40]);
        const bias = draw([4, 50]);
        const y = groupedLinear(x, weight, bias, indices(offsets));
        const upstream = torch.randn([1203, 50], { dtype: 'float64' });
        const ours = torch.grad([y], [x, weight, bias], { gradOutputs: [upstream] }) as torch.Tensor[];
        const parts = counts.map((count, e) =>
          x.narrow(0, offsets[e]!, count).matmul(weight.select(0, e).t()).add(bias.select(0, e)),
        );
        const whole = torch.cat(parts, 0);
        const theirs = torch.grad([whole], [x, weight, bias], { gradOutputs: [upstream] }) as torch.Tensor[];
        [y, ...ours].forEach((tensor, i) => {
          const other = i === 0 ? whole : theirs[i - 1]!;
          expect(tensor.sub(other).abs().max().item()).toBeLessThan(1e-11);
        });
      });
    } finally {
      torch.setNumThreads(threads);
    }
  });

  it('passes gradcheck', () => {
    torch.tidy(() => {
      const offsets = indices([0, 2, 2, 3]);
      const inputs = [draw([4, 2]), draw([3, 3, 2]), draw([3, 3])];
      torch.gradcheck((x, weight, bias) => groupedLinear(x!, weight!, bias!, offsets), inputs);
    });
  });

  it('gives the same bits every time', () => {
    torch.tidy(() => {
      const offsets = indices([0, 300, 310, 310, 900]);
      const [x, weight, bias] = [
        draw([900, 31], 'float32'),
        draw([4, 17, 31], 'float32'),
        draw([4, 17], 'float32'),
      ];
      const run = () => {
        const y = groupedLinear(x!, weight!, bias!, offsets);
        return [y, ...torch.grad([y.square().sum()], [x!, weight!, bias!])].map((tensor) => numbers(tensor!));
      };
      const first = run();
      for (let i = 0; i < 3; i++) expect(run()).toEqual(first);
    });
  });

  const refusals: [string, Partial<Arguments>, string, string][] = [
    ['another input width', { x: [3, 3] }, 'ERR_SHAPE', 'agree in in, got shapes [3, 3] and [2, 5, 4]'],
    ['a flat weight', { weight: [5, 4] }, 'ERR_SHAPE', 'weight must have shape [E, out, in]'],
    ['a bias of another width', { bias: [2, 4] }, 'ERR_SHAPE', 'agree in out'],
    ['a bias of other experts', { bias: [3, 5] }, 'ERR_SHAPE', 'agree in E'],
    ['offsets of other experts', { offsets: [0, 1, 2, 3] }, 'ERR_SHAPE', 'offsets must hold one number more'],
    ['offsets that do not begin with 0', { offsets: [1, 2, 3] }, 'ERR_INDEX', 'begin with 0, got 1'],
    [
      'offsets that decrease',
      { offsets: [0, 2, 1] },
      'ERR_INDEX',
      'must not decrease, got 2 then 1 at position 2',
    ],
    ['offsets past the rows', { offsets: [0, 1, 4] }, 'ERR_INDEX', 'end at row 4, but there are only 3 rows'],
    ['mixed dtypes', { weightDtype: 'float64' }, 'ERR_DTYPE', 'same dtype, got float32 and float64'],
    ['integer weights', { weightDtype: 'int32' }, 'ERR_DTYPE', 'weight must have dtype float32'],
  ];
  it.each(refusals)('refuses %s', (_, change, code, message) => {
    const args = { x: [3, 4], weight: [2, 5, 4], bias: [2, 5], offsets: [0, 1, 3], ...change };
    torch.tidy(() => {
      const weight = torch.zeros(args.weight, { dtype: change.weightDtype ?? 'float32' });
      const call = () =>
        groupedLinear(torch.zeros(args.x), weight, torch.zeros(args.bias), indices(args.offsets));
      expect(call).toThrow(expect.objectContaining({ code, message: expect.stringContaining(message) }));
    });
  });
});

interface Arguments {
  x: number[];
  weight: number[];
  bias: number[];
  offsets: number[];
  weightDtype: torch.DType;
}
