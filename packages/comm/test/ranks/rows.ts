/** Differentiable collectives on rows, their gradients and second derivatives against one process. */
import assert from 'node:assert/strict';
import type { Tensor } from '@fmoe/torch';
import { allGatherRows, evenRows, type ProcessGroup, reduceScatterRows, sliceRows } from '../../src/index.js';
import { type Cases, close, equal, matrix, range, sum, tensorOf, throws, torch } from './cases.js';

const width = 3;

export function rows(world: ProcessGroup): Cases {
  const { rank, size } = world;
  const cases: Cases = {};
  const all = range(size, (member) => member);
  const leaf = (values: number[][]): Tensor => tensorOf(values, width).requiresGrad_(true);
  const first = (counts: readonly number[]): number => sum(counts.slice(0, rank));

  for (const total of [0, 1, size - 1, size, size + 3, 3 * size]) {
    cases[`slices of ${total} rows, gathered again`] = () => {
      const counts = evenRows(total, size);
      assert.equal(sum(counts), total);
      const x = leaf(matrix(0, total, width));
      const slice = sliceRows(x, world);
      equal(slice, matrix(0, total, width).slice(first(counts), first(counts) + counts[rank]!));
      // Each rank squares its part; all of them then use the whole in the same way.
      const weight = tensorOf(matrix(9, total, width), width);
      const y = allGatherRows(slice.mul(slice), counts, world, 'slice');
      y.mul(weight).sum().backward();
      close(x.grad!, x.detach().mul(weight).mul(2));
    };
  }

  cases['an all-gather adds the gradients of all ranks, or takes their mean'] = () => {
    const counts = all.map((member) => (member * 2 + 1) % 4);
    // Rank m weighs the gathered rows with m + 1.
    for (const [gradient, factor] of [
      ['sum', (size * (size + 1)) / 2],
      ['mean', (size + 1) / 2],
      ['slice', rank + 1],
    ] as const) {
      const x = leaf(matrix(rank, counts[rank]!, width));
      const y = allGatherRows(x, counts, world, gradient);
      equal(
        y,
        all.flatMap((member) => matrix(member, counts[member]!, width)),
      );
      const weight = tensorOf(matrix(5, sum(counts), width), width);
      y.mul(weight)
        .sum()
        .mul(rank + 1)
        .backward();
      close(x.grad!, weight.narrow(0, first(counts), counts[rank]!).mul(factor));
    }
    throws('ERR_ARGUMENT', /unknown choice 'both'/, () =>
      allGatherRows(torch.zeros([counts[rank]!, 1]), counts, world, 'both' as 'sum'),
    );
  };

  cases['a reduce-scatter gives every rank’s gradient to all'] = () => {
    const counts = all.map((member) => (member + 1) % 3);
    const x = leaf(matrix(rank, sum(counts), width));
    const weight = (member: number): Tensor => tensorOf(matrix(member + 20, counts[member]!, width), width);
    const y = reduceScatterRows(x, counts, world);
    y.mul(weight(rank)).sum().backward();
    close(x.grad!, torch.cat(all.map(weight)));
  };

  cases['the gradient of an all-to-all goes back where the rows came from'] = () => {
    const send = all.map((to) => (rank + to) % 3);
    const receive = all.map((from) => (from + rank) % 3);
    const x = leaf(matrix(rank, sum(send), width));
    const y = world.allToAll(x, send, receive);
    // Cubes, so that there is a second derivative: 3x² and 6x.
    const [grad] = torch.grad([y.pow(3).sum()], [x], { createGraph: true });
    close(grad!.detach(), x.detach().pow(2).mul(3));
    const [second] = torch.grad([grad!.sum()], [x]);
    close(second!, x.detach().mul(6));
  };

  cases['graphs hold their group'] = () => {
    const group = world.split(0)!;
    const counts = all.map(() => 1);
    const x = leaf(matrix(rank, size, width));
    const y = group.allToAll(x, counts, counts);
    group.destroy();
    y.mul(2).sum().backward();
    close(x.grad!, torch.full([size, width], 2, { dtype: 'float64' }));
  };

  cases['operations that are not waited for record gradients as well'] = () => {
    const counts = all.map(() => 1);
    const x = leaf(matrix(rank, size, width));
    const work = world.startAllToAll(x, counts, counts);
    const y = work.wait();
    y.mul(y).sum().backward();
    close(x.grad!, x.detach().mul(2));
  };

  cases['what has no derivative says so'] = () => {
    const x = leaf(matrix(rank, size, width));
    const y = world.reduceScatter(
      x,
      all.map(() => 1),
      'max',
    );
    throws('ERR_NOT_IMPLEMENTED', /only sum and mean/, () => y.sum().backward());
  };
  return cases;
}
