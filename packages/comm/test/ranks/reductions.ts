/** All-reduce and reduce-scatter against sums, products and extremes written out. */
import type { DType, Tensor } from '@fmoe/torch';
import type { ProcessGroup, ReduceOp } from '../../src/index.js';
import { type Cases, equal, matrix, range, sum, tensorOf, throws, torch, value } from './cases.js';

const floats: DType[] = ['float64', 'float32', 'float16', 'bfloat16'];
const integers: DType[] = ['int64', 'int32', 'int16', 'int8', 'uint8'];
const ops: ReduceOp[] = ['sum', 'mean', 'product', 'min', 'max'];

const combine: Record<ReduceOp, (values: number[]) => number> = {
  sum,
  mean: (values) => sum(values) / values.length,
  product: (values) => values.reduce((total, x) => total * x, 1),
  min: (values) => Math.min(...values),
  max: (values) => Math.max(...values),
};

/** Values whose reductions every dtype holds: products stay small, unsigned ones are not negative. */
function input(dtype: DType, op: ReduceOp, rank: number, index: number): number {
  const x = value(rank, index);
  if (op === 'product') return x % 3 === 0 && rank < 6 ? 2 : 1;
  return dtype === 'uint8' ? x + 4 : x;
}

export function reductions(world: ProcessGroup): Cases {
  const { rank, size } = world;
  const cases: Cases = {};
  const all = range(size, (member) => member);

  for (const dtype of [...floats, ...integers]) {
    for (const op of ops) {
      // Sums of the half types are rounded; powers of two make the mean exact.
      if (op === 'mean' && (integers.includes(dtype) || ![1, 2, 4, 8].includes(size))) continue;
      cases[`all-reduce ${op} of ${dtype}`] = () => {
        const x = torch
          .tensor(
            range(37, (i) => input(dtype, op, rank, i)),
            { dtype: 'float64' },
          )
          .to(dtype);
        const result = world.allReduce_(x, op);
        if (result !== x) throw new Error('not in place');
        equal(
          x,
          range(37, (i) => combine[op](all.map((member) => input(dtype, op, member, i)))),
        );
      };
    }
  }

  cases['all-reduce of bool is or, and'] = () => {
    const bit = (member: number, i: number): boolean => value(member, i) > 1;
    const make = (): Tensor =>
      torch.tensor(
        range(50, (i) => bit(rank, i)),
        { dtype: 'bool' },
      );
    const or = range(50, (i) => Number(all.some((member) => bit(member, i))));
    const and = range(50, (i) => Number(all.every((member) => bit(member, i))));
    equal(world.allReduce_(make(), 'sum'), or);
    equal(world.allReduce_(make(), 'max'), or);
    equal(world.allReduce_(make(), 'product'), and);
    equal(world.allReduce_(make(), 'min'), and);
  };

  cases['all-reduce of complex numbers'] = () => {
    const make = (member: number): Tensor =>
      torch.tensor(
        range(4, (i) => [value(member, i), value(member, i, 1)]),
        { dtype: 'float64' },
      );
    const x = torch.viewAsComplex(make(rank));
    world.allReduce_(x, 'sum');
    equal(
      torch.viewAsReal(x),
      range(4, (i) => [sum(all.map((m) => value(m, i))), sum(all.map((m) => value(m, i, 1)))]),
    );
  };

  // 256 + 1 is 256 in bfloat16, so adding rank by rank would lose every one of them. NCCL does that.
  cases['half types are added in float32'] = () => {
    if (world.backend === 'nccl') return;
    const x = torch.tensor([rank === 0 ? 256 : 1], { dtype: 'bfloat16' });
    equal(
      world.allReduce_(x),
      torch
        .tensor([256 + size - 1], { dtype: 'bfloat16' })
        .to('float64')
        .toArray(),
    );
    const y = torch.tensor([rank === 0 ? 2048 : 1], { dtype: 'float16' });
    equal(
      world.allReduce_(y),
      torch
        .tensor([2048 + size - 1], { dtype: 'float16' })
        .to('float64')
        .toArray(),
    );
  };

  cases['all-reduce of a transposed, an empty and a 0-dimensional tensor'] = () => {
    const x = tensorOf(matrix(rank, 3, 5), 5).t();
    world.allReduce_(x, 'sum');
    equal(
      x.t(),
      range(3, (r) => range(5, (c) => sum(all.map((m) => matrix(m, 3, 5)[r]![c]!)))),
    );
    equal(world.allReduce_(torch.zeros([0, 4])), []);
    equal(world.allReduce_(torch.tensor(rank, { dtype: 'float32' }), 'max'), size - 1);
  };

  for (const dtype of [...floats, ...integers]) {
    for (const op of ['sum', 'max', 'product'] as const) {
      cases[`reduce-scatter ${op} of ${dtype}, uneven rows`] = () => {
        const rows = all.map((member) => (member * 2 + 1) % 4);
        const total = sum(rows);
        const element = (member: number, r: number, c: number): number => input(dtype, op, member, r * 3 + c);
        const x = tensorOf(
          range(total, (r) => range(3, (c) => element(rank, r, c))),
          3,
          dtype,
        );
        const first = sum(rows.slice(0, rank));
        equal(
          world.reduceScatter(x, rows, op),
          range(rows[rank]!, (r) =>
            range(3, (c) => combine[op](all.map((member) => element(member, first + r, c)))),
          ),
        );
      };
    }
  }

  cases['reduce-scatter of complex numbers'] = () => {
    const rows = all.map((member) => member % 2);
    const make = (member: number): Tensor =>
      torch.viewAsComplex(tensorOf(matrix(member, sum(rows), 2), 2).reshape([sum(rows), 1, 2]));
    const parts = torch.viewAsReal(world.reduceScatter(make(rank), rows));
    const first = sum(rows.slice(0, rank));
    equal(
      parts.reshape([rows[rank]!, 2]),
      range(rows[rank]!, (r) =>
        range(2, (c) => sum(all.map((member) => matrix(member, sum(rows), 2)[first + r]![c]!))),
      ),
    );
  };

  cases['reduce-scatter mean'] = () => {
    const rows = all.map(() => 2);
    const x = torch.full([2 * size, 2], rank + 1, { dtype: 'float32' });
    const mean = (size + 1) / 2;
    equal(world.reduceScatter(x, rows, 'mean'), [
      [mean, mean],
      [mean, mean],
    ]);
  };

  cases['refuses what cannot be reduced'] = () => {
    throws('ERR_DTYPE', /mean of int64/, () =>
      world.allReduce_(torch.zeros([2], { dtype: 'int64' }), 'mean'),
    );
    throws('ERR_ARGUMENT', /unknown reduction 'avg'/, () =>
      world.allReduce_(torch.zeros([2]), 'avg' as ReduceOp),
    );
    throws('ERR_AUTOGRAD', /requires grad/, () => world.allReduce_(torch.zeros([2]).requiresGrad_(true)));
    throws('ERR_SHAPE', /says \d+ rows/, () =>
      world.reduceScatter(
        torch.zeros([size + 1, 2]),
        all.map(() => 1),
      ),
    );
    throws('ERR_ARGUMENT', /count for each/, () => world.reduceScatter(torch.zeros([2]), []));
  };
  return cases;
}
