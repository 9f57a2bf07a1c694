/**
 * Arguments that contradict each other. On the CPU the call itself fails; on a GPU the values are not read back, and the
 * error comes at the next read.
 */

import * as torch from '@fmoe/torch';
import { describeEachDevice } from '@fmoe/torch/testing';
import { expect, it } from 'vitest';
import { assignPos, expertCount, limitByCapacity, pruneGateByCapacity } from '../../src/capacity.js';
import { combine } from '../../src/combine.js';
import { dispatch } from '../../src/dispatch.js';
import { groupedLinear } from '../../src/grouped-linear.js';
import { moeMlp } from '../../src/moe-mlp.js';
import { routePlan } from '../../src/route-plan.js';
import { topkGate } from '../../src/topk-gate.js';
import { numbers } from '../support.js';

const otherDevice = { cpu: 'meta', cuda: 'cpu' } as const;

describeEachDevice('misuse', (device) => {
  const ids = (values: number[], shape: number[] = [values.length]) =>
    torch.tensor(values, { dtype: 'int64', device }).view(shape);
  const zeros = (...shape: number[]) => torch.zeros(shape, { device });
  const topIdx = () => ids([0, 1, 1, -1, 2, 0], [3, 2]);

  /** The plan of `topIdx`, as numbers that a test may change: counts 2, 2, 1, and one padding row. */
  const plan = (change: { rowSlot?: number[]; slotRow?: number[]; offsets?: number[] } = {}) => ({
    rowSlot: ids(change.rowSlot ?? [0, 5, 1, 2, 4, -1]),
    slotRow: ids(change.slotRow ?? [0, 2, 3, -1, 4, 1], [3, 2]),
    offsets: ids(change.offsets ?? [0, 2, 4, 5]),
  });
  const send = (change: Parameters<typeof plan>[0]) => {
    const { rowSlot, slotRow } = plan(change);
    return dispatch(zeros(3, 4), rowSlot, slotRow);
  };
  const mlp = (change: Parameters<typeof plan>[0]) =>
    moeMlp(zeros(3, 4), { w1: zeros(3, 5, 4), w2: zeros(3, 4, 5) }, zeros(3, 2), plan(change));
  const collect = (slotRow: number[]) => {
    const rows = zeros(6, 4).requiresGrad_();
    combine(rows, zeros(3, 2), plan({ slotRow }).slotRow).sum().backward();
    return rows.grad!;
  };
  const biased = (selectionBias: torch.Tensor) => topkGate(zeros(2, 3), 1, { selectionBias }).topScore;
  const linear = (offsets: number[]) => groupedLinear(zeros(6, 4), zeros(3, 5, 4), null, ids(offsets));

  it('is none as long as nothing is changed', () => {
    torch.tidy(() => {
      const made = routePlan(topIdx(), 3);
      for (const [name, tensor] of Object.entries(plan())) {
        expect(tensor.equal(made[name as keyof typeof made]), name).toBe(true);
      }
      for (const result of [send({}), mlp({}), collect([0, 2, 3, -1, 4, 1]), linear([0, 2, 4, 5])]) {
        expect(numbers(result).every((value) => value === 0)).toBe(true);
      }
    });
  });

  const contradictions: [string, () => torch.Tensor, 'ERR_INDEX' | 'ERR_ARGUMENT'][] = [
    ['an expert that is none', () => routePlan(ids([0, 3], [1, 2]), 3).counts, 'ERR_INDEX'],
    ['counting an expert that is none', () => expertCount(ids([0, -2]), 3), 'ERR_INDEX'],
    ['pruning an expert that is none', () => pruneGateByCapacity(ids([0, 3]), ids([1, 1, 1])), 'ERR_INDEX'],
    ['counts of other ids', () => assignPos(ids([1, 4, 5]), topIdx()), 'ERR_INDEX'],
    ['a slot past the end', () => send({ rowSlot: [0, 5, 1, 2, 6, -1] }), 'ERR_INDEX'],
    ['a row past the end', () => send({ slotRow: [0, 2, 3, -1, 6, 1] }), 'ERR_INDEX'],
    ['rows that are exchanged', () => send({ rowSlot: [5, 0, 1, 2, 4, -1] }), 'ERR_INDEX'],
    ['a row whose slot has none', () => send({ rowSlot: [0, 5, 1, 2, 4, 3] }), 'ERR_INDEX'],
    ['a slot whose row has none', () => send({ rowSlot: [0, 5, 1, 2, -1, -1] }), 'ERR_INDEX'],
    ['two slots of one row', () => collect([0, 2, 3, 3, 4, 1]), 'ERR_INDEX'],
    ['an MLP with rows exchanged', () => mlp({ rowSlot: [5, 0, 1, 2, 4, -1] }), 'ERR_INDEX'],
    ['an MLP with a row too few', () => mlp({ offsets: [0, 2, 4, 4] }), 'ERR_INDEX'],
    ['an MLP with a row too many', () => mlp({ offsets: [0, 2, 4, 6] }), 'ERR_INDEX'],
    ['offsets that decrease', () => linear([0, 4, 2, 5]), 'ERR_INDEX'],
    ['offsets past the rows', () => linear([0, 2, 4, 7]), 'ERR_INDEX'],
    ['offsets that begin late', () => linear([1, 2, 4, 5]), 'ERR_INDEX'],
    ['a logit that is NaN', () => topkGate(zeros(2, 3).div(0), 1).topScore, 'ERR_ARGUMENT'],
    ['a bias that is NaN', () => biased(zeros(3).div(0)), 'ERR_ARGUMENT'],
    ['a bias that is infinite', () => biased(zeros(3).sub(1).div(0)), 'ERR_ARGUMENT'],
    ['a negative count', () => limitByCapacity(ids([3, -1]), ids([5, 5])), 'ERR_INDEX'],
    ['a negative capacity', () => limitByCapacity(ids([3, 1]), ids([5, -5])), 'ERR_INDEX'],
  ];
  it.each(contradictions)('ends as a coded error: %s', (_, call, code) => {
    torch.tidy(() => {
      expect(() => numbers(call())).toThrow(expect.objectContaining({ code }));
      // And what comes after it is none.
      expect(numbers(send({}))).toHaveLength(24);
    });
  });

  it('of devices names both at once', () => {
    torch.tidy(() => {
      const { rowSlot, slotRow } = plan();
      expect(() => dispatch(zeros(3, 4), rowSlot.to(otherDevice[device]), slotRow)).toThrow(
        expect.objectContaining({
          code: 'ERR_DEVICE',
          message: expect.stringContaining(otherDevice[device]),
        }),
      );
    });
  });
});
