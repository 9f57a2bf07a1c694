import * as torch from '@fmoe/torch';
import { describe, expect, it } from 'vitest';
import {
  cube,
  draw,
  expectSums,
  floatingDtypes,
  indices,
  integers,
  matrix,
  numbers,
  routes,
} from '../test/support.js';
import { dispatch } from './dispatch.js';
import { routePlan } from './route-plan.js';

describe('dispatch', () => {
  for (const dtype of floatingDtypes) {
    for (const width of [1, 5, 33]) {
      it.each(routes)(
        `copies token rows and adds up their gradients: $name, ${dtype}, D ${width}`,
        (route) => {
          torch.tidy(() => {
            const choices = route.topIdx[0]!.length;
            const { rowSlot, slotRow } = routePlan(indices(route.topIdx), route.experts);
            const x = draw([route.topIdx.length, width], dtype);
            const rows = dispatch(x, rowSlot, slotRow);

            const slots = integers(rowSlot);
            const source = matrix(x);
            const zeros = new Array<number>(width).fill(0);
            expect(rows.dtype).toBe(dtype);
            expect(matrix(rows)).toEqual(
              slots.map((slot) => (slot < 0 ? zeros : source[Math.floor(slot / choices)])),
            );

            const upstream = draw([slots.length, width], dtype).detach();
            const [gradient] = torch.grad([rows], [x], { gradOutputs: [upstream] });
            const incoming = matrix(upstream);
            const sum = (of: (value: number) => number) =>
              source.flatMap((_, token) =>
                zeros.map((_, column) =>
                  slots.reduce((total, slot, row) => {
                    const own = slot >= 0 && Math.floor(slot / choices) === token;
                    return own ? total + of(incoming[row]![column]!) : total;
                  }, 0),
                ),
              );
            expectSums(gradient!, sum(Number), sum(Math.abs), choices);
          });
        },
      );
    }
  }

  it('passes gradcheck', () => {
    torch.tidy(() => {
      const { rowSlot, slotRow } = routePlan(
        indices([
          [0, 1],
          [-1, 1],
          [1, 0],
        ]),
        2,
      );
      torch.gradcheck((x) => dispatch(x, rowSlot, slotRow), [draw([3, 2])]);
    });
  });

  it('has a second derivative', () => {
    torch.tidy(() => {
      const { rowSlot, slotRow } = routePlan(
        indices([
          [0, 1],
          [-1, 1],
        ]),
        2,
      );
      const x = draw([2, 3]);
      const loss = cube(dispatch(x, rowSlot, slotRow)).sum();
      const [first] = torch.grad([loss], [x], { createGraph: true });
      const [second] = torch.grad([first!.sum()], [x]);
      // d²/dx² of (number of rows of the token) · x³
      const copies = [2, 1];
      const expected = matrix(x).flatMap((row, token) => row.map((value) => 6 * copies[token]! * value));
      expectSums(second!, expected, expected.map(Math.abs), 4);
    });
  });

  it('works without tokens', () => {
    torch.tidy(() => {
      const { rowSlot, slotRow } = routePlan(torch.zeros([0, 2], { dtype: 'int64' }), 3);
      const x = torch.zeros([0, 4], { requiresGrad: true });
      const rows = dispatch(x, rowSlot, slotRow);
      expect(rows.shape).toEqual([0, 4]);
      rows.sum().backward();
      expect(x.grad?.shape).toEqual([0, 4]);
    });
  });

  it('takes int32 indices and tensors that are not contiguous', () => {
    torch.tidy(() => {
      const { rowSlot, slotRow } = routePlan(
        indices([
          [0, 1],
          [1, 0],
        ]),
        2,
      );
      const x = torch.randn([3, 2]).transpose(0, 1);
      const rows = dispatch(x, rowSlot.to('int32'), slotRow.to('int32'));
      expect(numbers(rows)).toEqual(numbers(dispatch(x.contiguous(), rowSlot, slotRow)));
    });
  });

  const refusals: [string, (f: Arguments) => Arguments, string, string][] = [
    ['another number of tokens', (f) => ({ ...f, x: torch.zeros([3, 4]) }), 'ERR_SHAPE', 'agree in T'],
    ['a vector', (f) => ({ ...f, x: torch.zeros([2]) }), 'ERR_SHAPE', 'x must have shape [T, D]'],
    [
      'integer tokens',
      (f) => ({ ...f, x: torch.zeros([2, 4], { dtype: 'int64' }) }),
      'ERR_DTYPE',
      'got int64',
    ],
    [
      'floating slots',
      (f) => ({ ...f, rowSlot: f.rowSlot.float() }),
      'ERR_DTYPE',
      'row_slot must have dtype',
    ],
    [
      'flat rows',
      (f) => ({ ...f, slotRow: f.slotRow.flatten() }),
      'ERR_SHAPE',
      'slot_row must have shape [T, K]',
    ],
    [
      'a slot past the end',
      (f) => ({ ...f, rowSlot: indices([0, 4, 1, 2]) }),
      'ERR_INDEX',
      'row_slot holds 4 at row 1',
    ],
    [
      'indices that are not inverse',
      (f) => ({ ...f, rowSlot: indices([3, 0, 1, 2]) }),
      'ERR_INDEX',
      'not inverse',
    ],
  ];
  it.each(refusals)('refuses %s', (_, change, code, message) => {
    torch.tidy(() => {
      const plan = routePlan(
        indices([
          [0, 1],
          [1, 0],
        ]),
        2,
      );
      const args = change({ x: torch.zeros([2, 4]), rowSlot: plan.rowSlot, slotRow: plan.slotRow });
      expect(() => dispatch(args.x, args.rowSlot, args.slotRow)).toThrow(
        expect.objectContaining({ code, message: expect.stringContaining(message) }),
      );
    });
  });

  it('refuses a disposed tensor', () => {
    torch.tidy(() => {
      const { rowSlot, slotRow } = routePlan(indices([[0]]), 1);
      const x = torch.zeros([1, 2]);
      x.dispose();
      expect(() => dispatch(x, rowSlot, slotRow)).toThrow(expect.objectContaining({ code: 'ERR_DISPOSED' }));
    });
  });
});

interface Arguments {
  x: torch.Tensor;
  rowSlot: torch.Tensor;
  slotRow: torch.Tensor;
}
