/** All-gather, all-to-all, broadcast, send and receive, barrier: what arrives is what was sent. */
import assert from 'node:assert/strict';
import { type DType, dtypes, type Tensor } from '@fmoe/torch';
import type { ProcessGroup, Work } from '../../src/index.js';
import { type Cases, equal, matrix, range, sum, tensorOf, throws, torch, value } from './cases.js';

/** Rows from one rank to another: uneven, some none. */
const rowsBetween = (from: number, to: number): number => (from * 3 + to * 2 + 1) % 4;

export function movements(world: ProcessGroup): Cases {
  const { rank, size } = world;
  const cases: Cases = {};
  const all = range(size, (member) => member);
  const sendRows = all.map((to) => rowsBetween(rank, to));
  const receiveRows = all.map((from) => rowsBetween(from, rank));
  /** Row r of what one rank sends to another. */
  const row = (from: number, to: number, r: number, width: number): number[] =>
    range(width, (c) => value(from * 8 + to, r * width + c));
  const outgoing = (from: number, width: number): number[][] =>
    all.flatMap((to) => range(rowsBetween(from, to), (r) => row(from, to, r, width)));
  const incoming = (to: number, width: number): number[][] =>
    all.flatMap((from) => range(rowsBetween(from, to), (r) => row(from, to, r, width)));

  // Every dtype that can be made from numbers; bytes move all the same.
  const moved: DType[] = dtypes.filter((dtype) => !dtype.startsWith('complex'));
  for (const dtype of moved) {
    const shown = (values: number[][]): unknown =>
      dtype === 'bool' ? values.map((r) => r.map((x) => Number(x !== 0))) : values;
    const lift = (values: number[][]): number[][] =>
      dtype.startsWith('uint') ? values.map((r) => r.map((x) => x + 4)) : values;

    cases[`all-to-all of ${dtype}`] = () =>
      equal(
        world.allToAll(tensorOf(lift(outgoing(rank, 3)), 3, dtype), sendRows, receiveRows),
        shown(lift(incoming(rank, 3))),
      );

    cases[`all-gather of ${dtype}`] = () => {
      const rows = all.map((member) => (member * 2) % 3);
      equal(
        world.allGather(tensorOf(lift(matrix(rank, rows[rank]!, 2)), 2, dtype), rows),
        shown(all.flatMap((member) => lift(matrix(member, rows[member]!, 2)))),
      );
    };

    cases[`broadcast of ${dtype}`] = () => {
      const root = size - 1;
      const x = tensorOf(lift(matrix(rank, 4, 5)), 5, dtype).t();
      world.broadcast_(x, root);
      equal(x.t(), shown(lift(matrix(root, 4, 5))));
    };
  }

  cases['complex numbers move'] = () => {
    const make = (member: number): number[][] => matrix(member, 3, 2);
    const x = torch.viewAsComplex(tensorOf(make(rank), 2));
    equal(
      torch.viewAsReal(
        world.allGather(
          x,
          all.map(() => 3),
        ),
      ),
      all.flatMap(make),
    );
  };

  cases['all-to-all of one and of three dimensions'] = () => {
    const one = torch.tensor(outgoing(rank, 1).flat(), { dtype: 'float64' });
    equal(world.allToAll(one, sendRows, receiveRows), incoming(rank, 1).flat());
    const three = tensorOf(outgoing(rank, 6), 6).reshape([sum(sendRows), 2, 3]);
    equal(world.allToAll(three, sendRows, receiveRows).reshape([sum(receiveRows), 6]), incoming(rank, 6));
  };

  cases['all-to-all of rows that are a view, of empty rows, and of nothing'] = () => {
    const wide = tensorOf(
      outgoing(rank, 3).map((r) => [...r, 99]),
      4,
    );
    equal(world.allToAll(wide.narrow(1, 0, 3), sendRows, receiveRows), incoming(rank, 3));
    const empty = world.allToAll(torch.zeros([sum(sendRows), 0]), sendRows, receiveRows);
    assert.deepEqual(empty.shape, [sum(receiveRows), 0]);
    const zeros = all.map(() => 0);
    assert.deepEqual(world.allToAll(torch.zeros([0, 7]), zeros, zeros).shape, [0, 7]);
  };

  cases['all-to-all into a given tensor, also one with gaps'] = () => {
    const rows = tensorOf(outgoing(rank, 3), 3);
    const out = tensorOf(incoming(rank, 3), 3).zero_();
    assert.equal(world.allToAll(rows, sendRows, receiveRows, out), out);
    equal(out, incoming(rank, 3));
    const wide = torch.zeros([sum(receiveRows), 5], { dtype: 'float64' });
    const work = world.startAllToAll(rows, sendRows, receiveRows, wide.narrow(1, 1, 3));
    equal(work.wait(), incoming(rank, 3));
    equal(
      wide,
      incoming(rank, 3).map((r) => [0, ...r, 0]),
    );
  };

  cases['all-to-all refuses a tensor that cannot take the rows'] = () => {
    const rows = tensorOf(outgoing(rank, 3), 3);
    const zeros = (count: number, dtype: DType = 'float64'): Tensor => torch.zeros([count, 3], { dtype });
    const total = sum(receiveRows);
    const into =
      (out: Tensor, from = rows) =>
      () =>
        world.allToAll(from, sendRows, receiveRows, out);
    throws('ERR_SHAPE', /'out' must have the shape/, into(zeros(total + 1)));
    throws('ERR_DTYPE', /'out'/, into(zeros(total, 'float32')));
    throws('ERR_AUTOGRAD', /requires grad/, into(zeros(total), rows.clone().requiresGrad_(true)));
    const ones = all.map(() => 1);
    const both = torch.zeros([size, 2]);
    throws('ERR_SHAPE', /single memory location/, () => world.allToAll(both, ones, ones, both));
  };

  cases['all rows go to one rank'] = () => {
    const to = all.map((member) => (member === size - 1 ? 5 : 0));
    const from = all.map(() => (rank === size - 1 ? 5 : 0));
    equal(
      world.allToAll(tensorOf(matrix(rank, 5, 2), 2), to, from),
      rank === size - 1 ? all.flatMap((member) => matrix(member, 5, 2)) : [],
    );
  };

  cases['broadcast from every rank'] = () => {
    for (const root of all) equal(world.broadcast_(torch.tensor([rank, 7 * rank]), root), [root, 7 * root]);
  };

  cases['send and receive around a ring'] = () => {
    if (size === 1) return;
    const next = (rank + 1) % size;
    const previous = (rank + size - 1) % size;
    const send = (seed: number, tag: number): Work<void> =>
      world.startSend(tensorOf(matrix(rank, 2, 3, seed), 3), next, tag);
    const early = torch.zeros([3, 2], { dtype: 'float64' }).t();
    const late = torch.zeros([2, 3], { dtype: 'float64' });
    if (world.backend === 'nccl') {
      // Messages come in the order in which they were sent, and sending may wait for the other side.
      const sent = rank % 2 === 0 ? [send(0, 1), send(1, 2)] : [];
      world.receive_(early, previous);
      world.receive_(late, previous);
      if (rank % 2 === 1) sent.push(send(0, 1), send(1, 2));
      for (const work of sent) work.wait();
    } else {
      const sent = [send(0, 1), send(1, 2)];
      // The other way round: tags tell them apart.
      world.receive_(late, previous, 2);
      world.receive_(early, previous, 1);
      for (const work of sent) work.wait();
    }
    equal(late, matrix(previous, 2, 3, 1));
    equal(early, matrix(previous, 2, 3));
  };

  cases['send blocks until it is received, receive until it is sent'] = () => {
    if (size === 1) return;
    if (rank === 0) world.send(torch.full([100_000], 3), 1);
    if (rank === 1) equal(world.receive_(torch.zeros([100_000]), 0).sum(), 300_000);
    world.barrier();
  };

  cases['a barrier waits for the last'] = () => {
    world.barrier();
    const begin = performance.now();
    if (rank === size - 1) Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 60);
    world.barrier();
    const waited = performance.now() - begin;
    assert.ok(waited > 40, `${waited} ms`);
  };

  cases['refuses what does not fit'] = () => {
    throws('ERR_ARGUMENT', /count for each of/, () =>
      world.allToAll(torch.zeros([2]), [...sendRows, 1], receiveRows),
    );
    throws('ERR_SHAPE', /rows/, () => world.allToAll(torch.zeros([999]), sendRows, receiveRows));
    throws('ERR_SHAPE', /rows/, () =>
      world.allGather(
        torch.zeros([999]),
        all.map(() => 3),
      ),
    );
    throws('ERR_ARGUMENT', /count for each/, () =>
      world.allGather(
        torch.zeros([2]),
        all.map(() => -2),
      ),
    );
    throws('ERR_INDEX', /no rank 99/, () => world.broadcast_(torch.zeros([2]), 99));
    throws('ERR_INDEX', /no rank -1/, () => world.send(torch.zeros([2]), -1));
    throws('ERR_ARGUMENT', /rank itself/, () => world.receive_(torch.zeros([2]), rank));
    throws('ERR_ARGUMENT', /tag|color/, () =>
      size > 1 ? world.send(torch.zeros([2]), (rank + 1) % size, 40_000) : world.split(-1),
    );
  };
  return cases;
}
