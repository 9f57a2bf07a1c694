/**
 * Runs on every rank: a small net whose copies are kept the same by `DistributedGroupedDataParallel`, next to one process with the
 * tokens of all ranks. Prints one line of JSON: how many comparisons there were, and what differs.
 *
 * Shape letters: W ranks, T tokens of a rank, D width.
 */
import type { ProcessGroup } from '@fmoe/comm';
import { joinTestRanks } from '@fmoe/comm/testing';
import { full, manualSeed, memory, nn, randn, scoped, type Tensor, tensor, tidy } from '@fmoe/torch';
import { collectGarbage } from '@fmoe/torch/testing';
import {
  type DataParallelOptions,
  DistributedGroupedDataParallel,
  markModuleParallelComm,
} from '../../src/index.js';
import { Comparison } from './comparison.js';

const width = 4;
const rows = 3;
const { world: dp, device } = joinTestRanks();
const { rank, size } = dp;
const ranks = Array.from({ length: size }, (_, of) => of);
const results = new Comparison(1e-12);

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
  return new Net().to({ dtype: 'float64', device });
}

/** The tokens of one rank. */
function tokens(of: number, part = 0): Tensor {
  manualSeed(100 + 10 * part + of);
  return randn([rows, width], { dtype: 'float64' }).to({ device });
}

const lossOf = (output: Tensor): Tensor => output.square().mean();

type Gradients = ReadonlyMap<string, Tensor | null>;
const gradients = (net: nn.Module): Gradients =>
  new Map([...net.namedParameters()].map(([name, { grad }]) => [name, grad?.clone() ?? null]));

/** The gradients of one process for the mean of the losses of some ranks. */
function oneProcess(of: readonly number[], extraOn: readonly number[] = [], parts = [0]): Gradients {
  const net = makeNet();
  for (const part of parts) {
    for (const each of of) {
      lossOf(net.call(tokens(each, part), extraOn.includes(each)))
        .div(of.length)
        .backward();
    }
  }
  return gradients(net);
}

function compare(what: string, actual: Gradients, expected: Gradients, factor = 1, part = ''): void {
  for (const [name, gradient] of expected) {
    if (name.startsWith(part))
      results.compare(`${what}: ${name}`, actual.get(name)!, gradient?.mul(factor) ?? null);
  }
}

/** Two steps, as the first one starts nothing early, and the gradients of the second. */
function train(options: Partial<DataParallelOptions> = {}, tag?: string): Gradients {
  const net = makeNet();
  if (tag !== undefined) markModuleParallelComm(net.second, tag);
  const parallel = new DistributedGroupedDataParallel(net, { groups: { dp }, ...options });
  for (let step = 0; step < 2; step++) {
    net.zeroGrad();
    lossOf(parallel.call(tokens(rank))).backward();
    parallel.allreduceGradients();
  }
  parallel.dispose();
  return gradients(net);
}

const cases: Record<string, () => void> = {};

const variants: [string, Partial<DataParallelOptions>][] = [
  ['overlapped', {}],
  ['at the end', { overlap: false }],
  ['in small buckets', { bucketBytes: 200 }],
  ['divided afterwards, in small buckets', { bucketBytes: 8 * (width * width + width), reduceAfter: true }],
  ['in float32 where that is wider', { fp32Allreduce: true }],
];

for (const [name, options] of variants) {
  cases[`gradients ${name}`] = () => compare(name, train(options), oneProcess(ranks));

  cases[`gradients ${name}, of a layer that only some ranks use`] = () => {
    const net = makeNet();
    const parallel = new DistributedGroupedDataParallel(net, { groups: { dp }, ...options });
    for (let step = 0; step < 3; step++) {
      net.zeroGrad();
      const user = step % size;
      lossOf(parallel.call(tokens(rank), rank === user)).backward();
      parallel.allreduceGradients();
      compare(`${name}, step ${step}`, gradients(net), oneProcess(ranks, [user]));
    }
    parallel.dispose();
  };

  cases[`gradients ${name}, of several backwards`] = () => {
    const net = makeNet();
    const parallel = new DistributedGroupedDataParallel(net, { groups: { dp }, ...options });
    for (let step = 0; step < 2; step++) {
      net.zeroGrad();
      parallel.noSync(() => lossOf(parallel.call(tokens(rank, 0))).backward());
      lossOf(parallel.call(tokens(rank, 1))).backward();
      parallel.allreduceGradients();
      compare(`${name}, step ${step}`, gradients(net), oneProcess(ranks, [], [0, 1]));
    }
    parallel.dispose();
  };
}

cases['gradients that stay from step to step'] = () => {
  const net = makeNet();
  const parallel = new DistributedGroupedDataParallel(net, { groups: { dp }, bucketBytes: 200 });
  for (let step = 0; step < 3; step++) {
    lossOf(parallel.call(tokens(rank))).backward();
    parallel.allreduceGradients();
    // The mean is the same on all ranks, and the mean of that is itself.
    compare(`step ${step}`, gradients(net), oneProcess(ranks), step + 1);
  }
  parallel.dispose();
};

cases['without scale'] = () => compare('sum', train({ noScale: true }), oneProcess(ranks), size);

cases['divided by a number of the caller'] = () =>
  compare('sum', train({ divisors: { dp: 1 } }), oneProcess(ranks), size);

cases['half precision'] = () => {
  /** The gradient of one number in bfloat16, which is `own` here. */
  const combine = (own: number, options: Partial<DataParallelOptions>): Tensor => {
    const net = new nn.Linear(1, 1, { bias: false }).to({ dtype: 'bfloat16', device });
    const parallel = new DistributedGroupedDataParallel(net, { groups: { dp }, ...options });
    net.weight.mul(own).sum().backward();
    parallel.allreduceGradients();
    parallel.dispose();
    return net.weight.grad!.float();
  };
  const expectNumber = (what: string, found: Tensor, expected: number): void =>
    results.compare(what, found, full([1, 1], expected, { device }));
  // Near 256 the numbers of bfloat16 are 2 apart: 256 + 1 + 1 is 258 only when nothing is rounded between.
  const sum = combine(rank === 0 ? 256 : rank < 3 ? 1 : 0, { fp32Allreduce: true, noScale: true });
  expectNumber('256 + 1 + 1', sum, size < 3 ? 256 : 258);
  if (size === 1) return;
  // (128 + 141) / 5 is 53.8. Near it they are 1/4 apart, near 128/5 and 141/5 an eighth, near 269 two.
  const own = [128, 141][rank] ?? 0;
  const divisors = { dp: 5 };
  expectNumber('25.625 + 28.25, rounded', combine(own, { divisors }), 54);
  expectNumber('268 / 5, rounded', combine(own, { divisors, reduceAfter: true }), 53.5);
  expectNumber('53.8, rounded', combine(own, { divisors, fp32Allreduce: true }), 53.75);
};

cases['what no other rank has'] = () => {
  const alone = oneProcess([rank]);
  for (const [scale, factor] of [
    ['global', 1 / size],
    ['group', 1],
  ] as const) {
    const own = train({ scale }, 'none');
    compare(scale, own, alone, factor, 'second');
    compare(scale, own, oneProcess(ranks), 1, 'first');
  }
};

/** Ranks 0 and 1, 2 and 3 … */
const pair: ProcessGroup | null = size % 2 === 0 ? dp.split(Math.floor(rank / 2), rank) : null;
const firstOfPair = rank - (rank % 2);

cases['a tag of its own over its own group'] = () => {
  if (pair === null) return;
  const own = train({ groups: { dp, pair } }, 'pair');
  // What is trained is the mean over all ranks.
  compare('pair', own, oneProcess([firstOfPair, firstOfPair + 1]), 2 / size, 'second');
  compare('pair', own, oneProcess(ranks), 1, 'first');
};

cases['parameters of the first rank of a group'] = () => {
  if (pair === null) return;
  const net = makeNet(rank);
  markModuleParallelComm(net.second, 'pair');
  markModuleParallelComm(net.extra, 'none');
  net.first.bias!.requiresGrad = false;
  new DistributedGroupedDataParallel(net, { groups: { dp, pair }, bucketBytes: 100 }).dispose();
  results.compare('frozen bias', net.first.bias!, makeNet(0).first.bias!);
  results.compare('second', net.second.weight, makeNet(firstOfPair).second.weight);
  results.compare('extra', net.extra.weight, makeNet(rank).extra.weight);
};

cases['clipped by the norm of all parameters on all ranks, each counted once'] = () => {
  for (const normType of [2, 1, Number.POSITIVE_INFINITY]) {
    const net = makeNet();
    markModuleParallelComm(net.second, 'none');
    const parallel = new DistributedGroupedDataParallel(net, { groups: { dp } });
    lossOf(parallel.call(tokens(rank))).backward();
    parallel.allreduceGradients();
    parallel.dispose();
    const before = gradients(net);
    const found = parallel.clipGradNorm_(0.1, { normType });
    // As one vector: what all have, and the second layer of each.
    const shared = oneProcess(ranks);
    const values = ranks.flatMap((of) =>
      [...(of === 0 ? shared : new Map()), ...oneProcess([of])]
        .filter(([name], index) => name.startsWith('second') === (of > 0 || index >= shared.size))
        .flatMap(([name, gradient]) =>
          gradient === null
            ? []
            : Array.from(gradient.cpu().data() as Float64Array, (value) =>
                name.startsWith('second') ? value / size : value,
              ),
        ),
    );
    const norm =
      normType === Number.POSITIVE_INFINITY
        ? Math.max(...values.map(Math.abs))
        : values.reduce((sum, value) => sum + Math.abs(value) ** normType, 0) ** (1 / normType);
    results.compare(`norm ${normType}`, found, tensor(norm, { dtype: 'float64' }).to({ device }));
    compare(`clipped by norm ${normType}`, gradients(net), before, 0.1 / (norm + 1e-6));
  }
};

cases['a second backward that is not inside noSync'] = () => {
  if (size === 1) return;
  const net = makeNet();
  for (const layer of [net.extra, net.unused]) layer.requiresGrad_(false);
  const parallel = new DistributedGroupedDataParallel(net, { groups: { dp }, bucketBytes: 1 });
  for (let step = 0; step < 3; step++) {
    net.zeroGrad();
    lossOf(parallel.call(tokens(rank))).backward();
    if (step === 1) {
      let message = '';
      try {
        lossOf(parallel.call(tokens(rank))).backward();
      } catch (error) {
        message = `${(error as { code: string }).code} ${(error as Error).message}`;
      }
      results.check('refused', /^ERR_AUTOGRAD .*inside noSync\(\)/.test(message), message);
      // The step is lost, the next one is not.
      continue;
    }
    parallel.allreduceGradients();
    compare(`step ${step}`, gradients(net), oneProcess(ranks));
  }
  parallel.dispose();
};

for (const [name, body] of Object.entries(cases)) {
  await scoped(async () => {
    results.title = name;
    body();
  });
}

await collectGarbage();
await scoped(async () => {
  results.title = 'ten steps';
  const net = makeNet();
  const parallel = new DistributedGroupedDataParallel(net, { groups: { dp }, bucketBytes: 200 });
  const counts: number[] = [];
  for (let step = 0; step < 10; step++) {
    tidy(() => {
      lossOf(parallel.call(tokens(rank))).backward();
      parallel.allreduceGradients();
      parallel.clipGradNorm_(1, {});
    });
    counts.push(memory().tensors);
  }
  results.check('live tensors', new Set(counts.slice(2)).size === 1, `${counts}`);
  parallel.dispose();
});
results.print(rank);
