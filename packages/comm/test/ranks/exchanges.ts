/** The exchange of experts' rows: order, outputs and gradients against one process that has all tokens and all experts. */
import assert from 'node:assert/strict';
import { combine, dispatch, routePlan } from '@fmoe/kernels';
import type { Tensor } from '@fmoe/torch';
import { Placement, type ProcessGroup, TokenExchange } from '../../src/index.js';
import { type Cases, close, equal, matrix, range, sum, tensorOf, throws, torch, value } from './cases.js';

const width = 5;
const outWidth = 3;
const choices = 2;

/** Who has how many tokens, and which experts they choose (-1: dropped). */
interface Routing {
  tokens: (rank: number) => number;
  choose: (rank: number, token: number, choice: number, experts: number) => number;
}

const routings: Record<string, Routing> = {
  'uneven tokens': {
    tokens: (rank) => 3 + ((rank * 5) % 7),
    choose: (rank, t, k, n) => (rank * 3 + t * 5 + k * 7 + t * t) % n,
  },
  'a rank without tokens, dropped choices': {
    tokens: (rank) => (rank % 3 === 0 ? 0 : 6),
    choose: (rank, t, k, n) => ((t + k + rank) % 4 === 0 ? -1 : (t * 2 + k + rank) % n),
  },
  'all tokens to one expert': { tokens: () => 4, choose: (_r, _t, k, n) => (k === 0 ? n - 1 : -1) },
  'nothing at all': { tokens: () => 0, choose: () => 0 },
  'every choice dropped': { tokens: () => 3, choose: () => -1 },
};

function placements(size: number): Record<string, Placement> {
  return {
    '8 even': Placement.even(8, size),
    '12 even': Placement.even(12, size),
    '7 shuffled': Placement.ofRanks(
      range(7, (expert) => (expert * 5 + 2) % size),
      size,
    ),
    '8 on one rank': Placement.ofRanks(
      range(8, () => size - 1),
      size,
    ),
    '6 in descending slots': new Placement(
      range(size, (rank) => range(6, (i) => 5 - i).filter((expert) => expert % size === rank)),
    ),
  };
}

/** Rank r's choices for its tokens, `[T, K]`. */
const topIdx = (routing: Routing, rank: number, experts: number): number[][] =>
  range(routing.tokens(rank), (t) => range(choices, (k) => routing.choose(rank, t, k, experts)));

const indexTensor = (values: number[][]): Tensor => tensorOf(values, choices).to('int64');

/** The rows that rank r sends to an expert: its tokens' rows in slot order. */
const rowsFor = (routing: Routing, rank: number, experts: number, expert: number): number[][] =>
  topIdx(routing, rank, experts).flatMap((chosen, t) =>
    chosen.flatMap((e) => (e === expert ? [matrix(rank, routing.tokens(rank), width)[t]!] : [])),
  );

const weightOf = (expert: number): number[][] => matrix(expert + 40, outWidth, width, 3);
const scoreOf = (rank: number, tokens: number): number[][] =>
  range(tokens, (t) => range(choices, (k) => (value(rank, t * choices + k, 5) + 5) / 16));

/** y = Σ_k score · W_e x, for all tokens of a rank, on one process. */
function reference(routing: Routing, rank: number, x: Tensor, score: Tensor, weights: Tensor[]): Tensor {
  const experts = weights.length;
  // Zeros that depend on x, for tokens without experts and ranks without tokens.
  const none = x.matmul(torch.zeros([width, outWidth], { dtype: 'float64' }));
  const tokens = topIdx(routing, rank, experts).map((ids, t) =>
    ids.reduce(
      (total, expert, k) => {
        if (expert < 0) return total;
        const row = x.narrow(0, t, 1).matmul(weights[expert]!.t());
        return total.add(row.mul(score.narrow(0, t, 1).narrow(1, k, 1)));
      },
      none.narrow(0, t, 1),
    ),
  );
  return tokens.length === 0 ? none : torch.cat(tokens);
}

/** The same through the exchange, each expert on its rank. */
function parallel(
  exchange: TokenExchange,
  x: Tensor,
  score: Tensor,
  index: Tensor,
  weights: Tensor[],
): Tensor {
  const plan = routePlan(index, exchange.placement.numExperts);
  const received = exchange.scatter(dispatch(x, plan.rowSlot, plan.slotRow));
  const offsets = (exchange.offsets.toArray() as bigint[]).map(Number);
  const own = exchange.placement.expertsOfRank[exchange.group.rank]!;
  const outputs = own.map((expert, slot) =>
    received.narrow(0, offsets[slot]!, offsets[slot + 1]! - offsets[slot]!).matmul(weights[expert]!.t()),
  );
  // A rank without experts still takes part, forwards and backwards.
  const none = received.matmul(torch.zeros([width, outWidth], { dtype: 'float64' }));
  const rows = exchange.gather(outputs.length === 0 ? none : torch.cat(outputs), plan.rowSlot.shape[0]!);
  return combine(rows, score, plan.slotRow);
}

export function exchanges(world: ProcessGroup): Cases {
  const { rank, size } = world;
  const cases: Cases = {};
  const all = range(size, (member) => member);

  for (const [placementName, placement] of Object.entries(placements(size))) {
    for (const [routingName, routing] of Object.entries(routings)) {
      const experts = placement.numExperts;
      const own = placement.expertsOfRank[rank]!;

      cases[`rows: ${placementName}, ${routingName}`] = () => {
        const plan = routePlan(indexTensor(topIdx(routing, rank, experts)), experts);
        const exchange = new TokenExchange(plan.counts, placement, world);
        const x = tensorOf(matrix(rank, routing.tokens(rank), width), width);
        const rows = dispatch(x, plan.rowSlot, plan.slotRow);
        const received = exchange.scatter(rows);
        const expected = own.map((expert) => all.map((member) => rowsFor(routing, member, experts, expert)));
        equal(received, expected.flat(2), 'received rows');
        equal(
          exchange.received,
          all.map((member) => own.map((_, slot) => expected[slot]![member]!.length)),
        );
        let offset = 0;
        equal(exchange.offsets, [0, ...expected.map((parts) => (offset += sum(parts.map((p) => p.length))))]);
        // There and back is the same, padding included.
        equal(exchange.gather(received, rows.shape[0]!), rows.toArray());
        equal(
          exchange.startGather(exchange.startScatter(rows).wait(), rows.shape[0]!).wait(),
          rows.toArray(),
        );
        equal(exchange.gather(received), rows.narrow(0, 0, exchange.sentRows).toArray());
      };

      cases[`gradients: ${placementName}, ${routingName}`] = () => {
        const leaf = (values: number[][], columns: number): Tensor =>
          tensorOf(values, columns).requiresGrad_(true);
        const tokens = (member: number): Tensor => leaf(matrix(member, routing.tokens(member), width), width);
        const scores = (member: number): Tensor => leaf(scoreOf(member, routing.tokens(member)), choices);
        const index = indexTensor(topIdx(routing, rank, experts));
        const probe = (member: number): Tensor =>
          tensorOf(matrix(member + 60, routing.tokens(member), outWidth), outWidth);

        const x = tokens(rank);
        const score = scores(rank);
        const weights = range(experts, (expert) => leaf(weightOf(expert), width));
        const plan = routePlan(index, experts);
        const exchange = new TokenExchange(plan.counts, placement, world);
        const y = parallel(exchange, x, score, index, weights);
        y.mul(probe(rank)).sum().backward();

        const whole = range(experts, (expert) => leaf(weightOf(expert), width));
        for (const member of all) {
          const [xs, ss] = [tokens(member), scores(member)];
          const expected = reference(routing, member, xs, ss, whole);
          expected.mul(probe(member)).sum().backward();
          if (member !== rank) continue;
          close(y, expected);
          close(x.grad!, xs.grad ?? torch.zeros(xs.shape, { dtype: 'float64' }));
          close(score.grad!, ss.grad ?? torch.zeros(ss.shape, { dtype: 'float64' }));
        }
        for (const expert of own) {
          close(
            weights[expert]!.grad!,
            whole[expert]!.grad ?? torch.zeros([outWidth, width], { dtype: 'float64' }),
          );
        }
      };
    }
  }

  cases['rows of every floating dtype, of a view, and of more dimensions'] = () => {
    const placement = Placement.even(2 * size, size);
    const plan = routePlan(indexTensor(all.map((e) => [(e + rank) % (2 * size), 2 * size - 1])), 2 * size);
    const exchange = new TokenExchange(plan.counts, placement, world);
    const plain = matrix(rank, 2 * size, 4);
    const there = exchange.scatter(tensorOf(plain, 4)).toArray();
    for (const dtype of ['float32', 'bfloat16', 'float16', 'int64', 'bool'] as const) {
      const rows = tensorOf(plain, 4, dtype);
      const result = exchange.gather(exchange.scatter(rows), 2 * size);
      assert.equal(result.dtype, dtype);
      equal(result, rows.to('float64').toArray());
    }
    const view = tensorOf(
      plain.map((r) => [...r, 9]),
      5,
    ).narrow(1, 0, 4);
    equal(exchange.scatter(view), there);
    const deep = exchange.scatter(tensorOf(plain, 4).reshape([2 * size, 2, 2]));
    equal(deep.reshape([exchange.receivedRows, 4]), there);
  };

  cases['second derivatives go through both directions'] = () => {
    const placement = Placement.even(size + 1, size);
    const plan = routePlan(
      indexTensor(range(3, (t) => [t % (size + 1), (t + rank + 1) % (size + 1)])),
      size + 1,
    );
    const exchange = new TokenExchange(plan.counts, placement, world);
    const rows = tensorOf(matrix(rank, exchange.sentRows, 2), 2).requiresGrad_(true);
    const y = exchange.gather(exchange.scatter(rows).pow(3));
    const [grad] = torch.grad([y.sum()], [rows], { createGraph: true });
    close(grad!.detach(), rows.detach().pow(2).mul(3));
    const [second] = torch.grad([grad!.sum()], [rows]);
    close(second!, rows.detach().mul(6));
  };

  cases['ten steps leave no tensor behind'] = () => {
    const placement = Placement.ofRanks(
      range(7, (expert) => (expert * 5 + 2) % size),
      size,
    );
    const step = (): void =>
      torch.tidy(() => {
        const plan = routePlan(indexTensor(topIdx(routings['uneven tokens']!, rank, 7)), 7);
        const exchange = new TokenExchange(plan.counts, placement, world);
        const rows = torch.ones([plan.rowSlot.shape[0]!, 8]).requiresGrad_(true);
        exchange.gather(exchange.scatter(rows).mul(2), plan.rowSlot.shape[0]!).sum().backward();
        exchange.startScatter(rows.detach()).wait();
      });
    step();
    const before = torch.memory().tensors;
    for (let i = 0; i < 10; i++) step();
    assert.equal(torch.memory().tensors, before);
  };

  cases['refuses what does not fit'] = () => {
    const counts = torch.zeros([2 * size], { dtype: 'int64' });
    const even = Placement.even(2 * size, size);
    throws(
      'ERR_ARGUMENT',
      /placement is for/,
      () => new TokenExchange(counts, Placement.even(4, size + 1), world),
    );
    throws('ERR_DTYPE', /int64/, () => new TokenExchange(counts.to('float32'), even, world));
    throws(
      'ERR_SHAPE',
      /shape/,
      () => new TokenExchange(torch.zeros([3 * size], { dtype: 'int64' }), even, world),
    );
    const exchange = new TokenExchange(counts.add(1), even, world);
    throws('ERR_SHAPE', /rows/, () => exchange.scatter(torch.zeros([1, 4])));
    throws('ERR_SHAPE', /rows/, () => exchange.gather(torch.zeros([1, 4])));
    throws('ERR_SHAPE', /rows/, () => exchange.gather(torch.zeros([2 * size, 4]), 1));
  };
  return cases;
}
