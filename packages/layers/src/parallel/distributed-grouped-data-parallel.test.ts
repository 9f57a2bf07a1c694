/** Shape letters: W ranks, T tokens of a rank, D width. */
import type { ProcessGroup } from '@fmoe/comm';
import { keep, manualSeed, memory, nn, randn, type Tensor, tidy } from '@fmoe/torch';
import { collectGarbage, expectAllClose } from '@fmoe/torch/testing';
import { describe, expect, it } from 'vitest';
import { runRanks } from '../../test/lockstep.js';
import { markModuleParallelComm } from '../parallel-comm.js';
import { type DataParallelOptions, DistributedGroupedDataParallel } from './index.js';

const width = 4;
const rows = 3;

/** Two layers that always run, one that runs when told to, and one that never does. */
class Net extends nn.Module {
  readonly first = new nn.Linear(width, width);
  readonly second = new nn.Linear(width, width);
  readonly extra = new nn.Linear(width, width);
  readonly unused = new nn.Linear(width, width);
  override forward(x: Tensor, withExtra = false): Tensor {
    const hidden = this.second.call(this.first.call(x).tanh());
    return withExtra ? hidden.add(this.extra.call(x)) : hidden;
  }
}

function makeNet(seed = 1): Net {
  manualSeed(seed);
  return new Net().to('float64');
}

/** The tokens of one rank. */
function tokens(rank: number, part = 0): Tensor {
  manualSeed(100 + 10 * part + rank);
  return randn([rows, width], { dtype: 'float64' });
}

const lossOf = (output: Tensor): Tensor => output.square().mean();
const gradients = (net: nn.Module) =>
  [...net.namedParameters()].map(([name, { grad }]) => [name, grad && keep(grad.clone())] as const);

/** The gradients of one process for the mean loss over the tokens of W ranks. */
function oneProcess(size: number, extraOn: readonly number[] = [], parts = 1) {
  const net = makeNet();
  for (let part = 0; part < parts; part++) {
    for (let rank = 0; rank < size; rank++) {
      lossOf(net.call(tokens(rank, part), extraOn.includes(rank)))
        .div(size)
        .backward();
    }
  }
  return gradients(net);
}

function expectSame(
  actual: ReturnType<typeof gradients>,
  expected: ReturnType<typeof gradients>,
  factor = 1,
): void {
  expect(actual.map(([name]) => name)).toEqual(expected.map(([name]) => name));
  for (const [index, [name, gradient]] of expected.entries()) {
    if (gradient === null) expect([name, actual[index]![1]]).toEqual([name, null]);
    else expectAllClose(actual[index]![1]!, gradient.mul(factor), { atol: 1e-14, rtol: 1e-12 });
  }
}

const variants: [string, Partial<DataParallelOptions>][] = [
  ['overlapped', {}],
  ['at the end', { overlap: false }],
  ['in small buckets', { bucketBytes: 200 }],
  ['divided afterwards, in small buckets', { bucketBytes: 8 * (width * width + width), reduceAfter: true }],
  ['in float32 where that is wider', { fp32Allreduce: true }],
];

describe.each(variants)('gradients %s', (_, options) => {
  it.each([2, 3])('of %i ranks are those of one process with the whole batch', (size) => {
    const all = runRanks(size, (dp, rank) => {
      const net = makeNet();
      const parallel = new DistributedGroupedDataParallel(net, { groups: { dp }, ...options });
      for (let step = 0; step < 2; step++) {
        net.zeroGrad();
        lossOf(parallel.call(tokens(rank))).backward();
        parallel.allreduceGradients();
      }
      return gradients(net);
    });
    for (const own of all) expectSame(own, oneProcess(size));
  });

  it('count a parameter that only some ranks use, and leave one without gradient that nobody uses', () => {
    const all = runRanks(3, (dp, rank) => {
      const net = makeNet();
      const parallel = new DistributedGroupedDataParallel(net, { groups: { dp }, ...options });
      lossOf(parallel.call(tokens(rank), rank === 1)).backward();
      parallel.allreduceGradients();
      return gradients(net);
    });
    for (const own of all) expectSame(own, oneProcess(3, [1]));
  });

  it('of several backwards add up before they are combined', () => {
    const all = runRanks(2, (dp, rank) => {
      const net = makeNet();
      const parallel = new DistributedGroupedDataParallel(net, { groups: { dp }, ...options });
      parallel.noSync(() => lossOf(parallel.call(tokens(rank, 0))).backward());
      lossOf(parallel.call(tokens(rank, 1))).backward();
      parallel.allreduceGradients();
      return gradients(net);
    });
    for (const own of all) expectSame(own, oneProcess(2, [], 2));
  });
});

describe('DistributedGroupedDataParallel', () => {
  const run = (dp: ProcessGroup, rank: number, options: Partial<DataParallelOptions> = {}, tag?: string) => {
    const net = makeNet();
    if (tag !== undefined) markModuleParallelComm(net.second, tag);
    const parallel = new DistributedGroupedDataParallel(net, { groups: { dp }, ...options });
    lossOf(parallel.call(tokens(rank))).backward();
    parallel.allreduceGradients();
    return gradients(net);
  };

  it('adds up without scale', () => {
    for (const own of runRanks(2, (dp, rank) => run(dp, rank, { noScale: true })))
      expectSame(own, oneProcess(2), 2);
  });

  it('adds up half precision in float32 when told to', () => {
    // 256 + 1 + 1 in bfloat16, whose numbers near 256 are 2 apart: 256 when each sum is rounded, 258 when only the last one is.
    const sum = (fp32Allreduce: boolean) =>
      runRanks(3, (dp, rank) => {
        const net = new nn.Linear(1, 1, { bias: false });
        net.to('bfloat16');
        const parallel = new DistributedGroupedDataParallel(net, {
          groups: { dp: halving(dp) },
          noScale: true,
          fp32Allreduce,
        });
        net.weight
          .mul(rank === 0 ? 256 : 1)
          .sum()
          .backward();
        parallel.allreduceGradients();
        return net.weight.grad!.float().item();
      });
    expect(sum(true)).toEqual([258, 258, 258]);
    expect(sum(false)).toEqual([256, 256, 256]);
  });

  it('starts to combine while backward is at work, in one order on all ranks', () => {
    const starts = runRanks(2, (world, rank) => {
      const net = makeNet();
      const seen: string[] = [];
      const startAllReduce_ = (flat: Tensor) => {
        seen.push(`${flat.shape}`);
        return world.startAllReduce_(flat);
      };
      const dp = Object.assign(Object.create(world) as ProcessGroup, {
        startAllReduce_,
        size: 2,
        rank,
        members: [0, 1],
      });
      const bucketBytes = 8 * (width * width + width);
      net.unused.requiresGrad_(false);
      const parallel = new DistributedGroupedDataParallel(net, {
        groups: { dp },
        bucketBytes,
        needSync: false,
      });
      // Ranks whose graphs meet the layers in another order.
      const x = tokens(rank);
      const parts = [net.first.call(x), net.second.call(x), net.extra.call(x)];
      const [a, b, c] = (rank === 0 ? parts : parts.reverse()) as [Tensor, Tensor, Tensor];
      a.mul(b).mul(c).sum().backward();
      const early = seen.length;
      parallel.allreduceGradients();
      return { early, total: seen.length };
    });
    for (const { early, total } of starts) {
      expect(total).toBe(3);
      expect(early).toBeGreaterThan(0);
    }
  });

  it('scales what no other rank has like everything else, or as FastMoE does', () => {
    const own = (scale: 'global' | 'group') => runRanks(2, (dp, rank) => run(dp, rank, { scale }, 'none'));
    const alone = [0, 1].map((rank) => {
      const net = makeNet();
      lossOf(net.call(tokens(rank))).backward();
      return gradients(net);
    });
    const isPrivate = ([name]: readonly [string, unknown]) => name.startsWith('second');
    for (const [scale, factor] of [
      ['global', 1 / 2],
      ['group', 1],
    ] as const) {
      for (const [rank, result] of own(scale).entries()) {
        expectSame(result.filter(isPrivate), alone[rank]!.filter(isPrivate), factor);
        expectSame(
          result.filter((entry) => !isPrivate(entry)),
          oneProcess(2).filter((entry) => !isPrivate(entry)),
        );
      }
    }
  });

  it('combines a tag of its own over its own group', () => {
    // Ranks 0, 1 and 2, 3 share the second layer; what is trained is the mean over all four.
    const all = runRanks(4, (dp, rank) => {
      const pair = dp.split(Math.floor(rank / 2), rank)!;
      return run(dp, rank, { groups: { dp, pair } }, 'pair');
    });
    const alone = [0, 1, 2, 3].map((rank) => {
      const net = makeNet();
      lossOf(net.call(tokens(rank))).backward();
      return net.second.weight.grad!.clone();
    });
    for (const [rank, result] of all.entries()) {
      const found = result.find(([name]) => name === 'second.weight')![1]!;
      const first = 2 * Math.floor(rank / 2);
      expectAllClose(found, alone[first]!.add(alone[first + 1]!).div(4), { atol: 1e-14, rtol: 1e-12 });
    }
  });

  it('divides by a number of the caller', () => {
    for (const own of runRanks(2, (dp, rank) => run(dp, rank, { divisors: { dp: 1 } })))
      expectSame(own, oneProcess(2), 2);
  });

  it('gives all ranks of a group the parameters of its first', () => {
    const weights = runRanks(4, (dp, rank) => {
      const net = makeNet(rank);
      const pair = dp.split(Math.floor(rank / 2), rank)!;
      markModuleParallelComm(net.second, 'pair');
      markModuleParallelComm(net.extra, 'none');
      net.first.bias!.requiresGrad = false;
      new DistributedGroupedDataParallel(net, { groups: { dp, pair }, bucketBytes: 100 });
      return [net.first.bias!, net.second.weight, net.extra.weight].map((parameter) => parameter.toArray());
    });
    for (const [rank, [bias, second, extra]] of weights.entries()) {
      const firstOfPair = makeNet(2 * Math.floor(rank / 2));
      expect(bias).toEqual(makeNet(0).first.bias!.toArray());
      expect(second).toEqual(firstOfPair.second.weight.toArray());
      expect(extra).toEqual(makeNet(rank).extra.weight.toArray());
    }
  });

  it('clips by the norm of all parameters on all ranks, each counted once', () => {
    for (const normType of [2, 1, Number.POSITIVE_INFINITY]) {
      const runs = runRanks(2, (dp, rank) => {
        const net = makeNet();
        markModuleParallelComm(net.second, 'none');
        const parallel = new DistributedGroupedDataParallel(net, { groups: { dp } });
        lossOf(parallel.call(tokens(rank))).backward();
        parallel.allreduceGradients();
        const before = gradients(net);
        const norm = parallel.clipGradNorm_(0.1, { normType }).item();
        return { norm, before, after: gradients(net) };
      });
      // As one vector: what both have, and the second layer of each.
      const values = runs.flatMap(({ before }, rank) =>
        before.flatMap(([name, gradient]) =>
          gradient === null || (rank === 1 && !name.startsWith('second'))
            ? []
            : Array.from(gradient.data() as Float64Array),
        ),
      );
      const norm =
        normType === Number.POSITIVE_INFINITY
          ? Math.max(...values.map(Math.abs))
          : values.reduce((sum, value) => sum + Math.abs(value) ** normType, 0) ** (1 / normType);
      expect(norm).toBeGreaterThan(0.1);
      for (const run of runs) {
        expect(run.norm).toBeCloseTo(norm, 13);
        expectSame(run.after, run.before, 0.1 / (norm + 1e-6));
      }
    }
  });

  it('refuses a second backward that is not inside noSync', () => {
    const messages = runRanks(2, (dp, rank) => {
      const net = makeNet();
      for (const layer of [net.extra, net.unused]) layer.requiresGrad_(false);
      const parallel = new DistributedGroupedDataParallel(net, { groups: { dp }, bucketBytes: 1 });
      lossOf(parallel.call(tokens(rank))).backward();
      try {
        lossOf(parallel.call(tokens(rank))).backward();
      } catch (error) {
        return `${(error as { code: string }).code} ${(error as Error).message}`;
      }
      return '';
    });
    for (const message of messages) expect(message).toMatch(/^ERR_AUTOGRAD .*inside noSync\(\)/);
  });

  it.each([
    [{ groups: {} }, /groups needs at least dp or world/],
    [{ scale: 'mean' as 'group' }, /scale is 'mean', expected 'global' or 'group'/],
  ])('refuses %j', (options, message) => {
    expect(() => runRanks(1, (dp, rank) => run(dp, rank, options))).toThrow(
      expect.objectContaining({ code: 'ERR_ARGUMENT', message: expect.stringMatching(message) }),
    );
  });

  it('refuses a tag that has no group', () => {
    expect(() => runRanks(1, (dp, rank) => run(dp, rank, {}, 'piar'))).toThrow(
      expect.objectContaining({
        code: 'ERR_ARGUMENT',
        message: expect.stringMatching(
          /second\.bias is to be synchronised over 'piar', but groups has only dp, gate/,
        ),
      }),
    );
  });

  it('leaves no tensors behind', async () => {
    await collectGarbage();
    const live = runRanks(1, (dp, rank) => {
      const net = makeNet();
      // One member, but treated as several, so that gradients travel.
      const group = Object.assign(Object.create(dp) as ProcessGroup, {
        size: 2,
        startAllReduce_: (flat: Tensor) => ({ isDone: true, wait: () => flat }),
      });
      const parallel = new DistributedGroupedDataParallel(net, { groups: { dp: group }, needSync: false });
      const counts: number[] = [];
      for (let step = 0; step < 10; step++) {
        tidy(() => {
          lossOf(parallel.call(tokens(rank))).backward();
          parallel.allreduceGradients();
          parallel.clipGradNorm_(1, {});
        });
        counts.push(memory().tensors);
      }
      return counts.slice(2);
    })[0]!;
    expect(new Set(live).size).toBe(1);
  });
});

/** A group that adds up two at a time, rounding each sum to the dtype of the tensor, as rings do. */
function halving(group: ProcessGroup): ProcessGroup {
  return Object.assign(Object.create(group) as ProcessGroup, {
    size: group.size,
    startAllReduce_: (flat: Tensor) => {
      const all = group.allGather(flat.unsqueeze(0), [1, 1, 1]);
      let sum = all.select(0, 0);
      for (let rank = 1; rank < group.size; rank++) sum = sum.add(all.select(0, rank));
      return { isDone: true, wait: () => flat.copy_(sum) };
    },
    broadcast_: (tensor: Tensor) => group.broadcast_(tensor, 0),
  });
}
