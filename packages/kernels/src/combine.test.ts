import * as torch from '@fmoe/torch';
import { describe, expect, it } from 'vitest';
import {
  cube,
  draw,
  expectSums,
  floatingDtypes,
  indices,
  integers,
  type Matrix,
  matrix,
  routes,
} from '../test/support.js';
import { combine } from './combine.js';
import { routePlan } from './route-plan.js';

/** Output and gradients from their definitions. `slotRow` is flat. */
function bruteForce(rows: Matrix, score: Matrix, slotRow: number[], upstream: Matrix) {
  const width = upstream[0]!.length;
  const choices = score[0]!.length;
  const y = score.map(() => new Array<number>(width).fill(0));
  const rowsGrad = rows.map(() => new Array<number>(width).fill(0));
  const scoreGrad = score.map((row) => row.map(() => 0));
  slotRow.forEach((row, slot) => {
    if (row < 0) return;
    const token = Math.floor(slot / choices);
    const choice = slot % choices;
    for (let column = 0; column < width; column++) {
      y[token]![column]! += score[token]![choice]! * rows[row]![column]!;
      rowsGrad[row]![column]! += score[token]![choice]! * upstream[token]![column]!;
      scoreGrad[token]![choice]! += rows[row]![column]! * upstream[token]![column]!;
    }
  });
  return { y: y.flat(), rowsGrad: rowsGrad.flat(), scoreGrad: scoreGrad.flat() };
}

const absolute = (values: Matrix): Matrix => values.map((row) => row.map(Math.abs));

describe('combine', () => {
  for (const dtype of floatingDtypes) {
    for (const scoreDtype of new Set([dtype, 'float32'] as const)) {
      for (const width of [1, 5, 33]) {
        it.each(routes)(
          `adds up weighted rows: $name, ${dtype} with ${scoreDtype} scores, D ${width}`,
          ({ topIdx, experts }) => {
            torch.tidy(() => {
              const plan = routePlan(indices(topIdx), experts);
              const choices = topIdx[0]!.length;
              const rows = draw([topIdx.length * choices, width], dtype);
              const score = draw([topIdx.length, choices], scoreDtype);
              const upstream = draw([topIdx.length, width], dtype).detach();
              const y = combine(rows, score, plan.slotRow);
              expect(y.dtype).toBe(dtype);
              const grads = torch.grad([y], [rows, score], { gradOutputs: [upstream] }) as torch.Tensor[];
              expect(grads.map((grad) => grad.dtype)).toEqual([dtype, scoreDtype]);

              const arrays = [matrix(rows), matrix(score)] as const;
              const slotRow = integers(plan.slotRow);
              const exact = bruteForce(...arrays, slotRow, matrix(upstream));
              const size = bruteForce(
                absolute(arrays[0]),
                absolute(arrays[1]),
                slotRow,
                absolute(matrix(upstream)),
              );
              // Scores of another dtype are rounded to float32 beside half and float32 rows.
              expectSums(y, exact.y, size.y, choices);
              expectSums(grads[0]!, exact.rowsGrad, size.rowsGrad, 1);
              expectSums(grads[1]!, exact.scoreGrad, size.scoreGrad, width);
            });
          },
        );
      }
    }
  }

  it('passes gradcheck, padding rows and dropped slots included', () => {
    torch.tidy(() => {
      const { slotRow } = routePlan(
        indices([
          [0, 1],
          [-1, 1],
          [1, 0],
        ]),
        2,
      );
      torch.gradcheck((rows, score) => combine(rows!, score!, slotRow), [draw([6, 2]), draw([3, 2])]);
    });
  });

  it('has a second derivative', () => {
    torch.tidy(() => {
      const { slotRow } = routePlan(
        indices([
          [0, 1],
          [-1, 1],
          [1, 0],
        ]),
        2,
      );
      // The numeric side of gradcheck runs without gradients; the first derivative needs them.
      const derivative = (rows: torch.Tensor, score: torch.Tensor): torch.Tensor[] =>
        torch.enableGrad(() => {
          const loss = cube(combine(rows, score, slotRow)).sum();
          return torch.grad([loss], [rows, score], { createGraph: true }) as torch.Tensor[];
        });
      torch.gradcheck((rows, score) => derivative(rows!, score!), [draw([6, 2]), draw([3, 2])]);
    });
  });

  it('leaves the number of tensors as it was, ten steps on', () => {
    torch.tidy(() => {
      const { slotRow } = routePlan(
        indices([
          [0, 1],
          [1, 0],
        ]),
        2,
      );
      const [rows, score] = [draw([4, 3]), draw([2, 2])];
      const step = () =>
        torch.tidy(() => void torch.grad([combine(rows, score, slotRow).sum()], [rows, score]));
      step();
      const before = torch.memory().tensors;
      for (let i = 0; i < 10; i++) step();
      expect(torch.memory().tensors).toBe(before);
    });
  });

  const refusals: [string, () => [torch.Tensor, torch.Tensor, torch.Tensor], string, string][] = [
    ['scores of other tokens', () => [zeros(4, 3), zeros(3, 2), slots()], 'ERR_SHAPE', 'agree in T'],
    ['scores of other choices', () => [zeros(4, 3), zeros(2, 1), slots()], 'ERR_SHAPE', 'agree in K'],
    ['a vector', () => [zeros(4), zeros(2, 2), slots()], 'ERR_SHAPE', 'rows must have shape [R, D]'],
    ['integer rows', () => [zeros(4, 3).long(), zeros(2, 2), slots()], 'ERR_DTYPE', 'rows must have dtype'],
    [
      'integer scores',
      () => [zeros(4, 3), zeros(2, 2).long(), slots()],
      'ERR_DTYPE',
      'score must have dtype',
    ],
    [
      'floating slots',
      () => [zeros(4, 3), zeros(2, 2), zeros(2, 2)],
      'ERR_DTYPE',
      'slot_row must have dtype',
    ],
    ['too few rows', () => [zeros(3, 3), zeros(2, 2), slots()], 'ERR_INDEX', 'slot_row holds 3'],
    ['a row below -1', () => [zeros(4, 3), zeros(2, 2), slots(-2)], 'ERR_INDEX', 'slot_row holds -2'],
    ['a row named twice', () => [zeros(4, 3), zeros(2, 2), slots(0)], 'ERR_INDEX', 'row 0 more than once'],
  ];
  it.each(refusals)('refuses %s', (_, args, code, message) => {
    torch.tidy(() => {
      expect(() => combine(...args())).toThrow(
        expect.objectContaining({ code, message: expect.stringContaining(message) }),
      );
    });
  });
});

const zeros = (...shape: number[]): torch.Tensor => torch.zeros(shape);
const slots = (last = 3): torch.Tensor =>
  indices([
    [0, 1],
    [2, last],
  ]);
