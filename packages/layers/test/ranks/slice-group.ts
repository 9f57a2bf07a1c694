/**
 * Runs on every rank: layers that share the work on the same tokens out over all ranks, next to the same layers doing it alone.
 * Prints one line of JSON: how many comparisons there were, and what differs.
 *
 * Shape letters: T tokens, D width.
 */
import type { ProcessGroup } from '@fmoe/comm';
import { joinTestRanks } from '@fmoe/comm/testing';
import { arange, manualSeed, nn, randn, scoped, type Tensor } from '@fmoe/torch';
import {
  FMoE,
  FMoETransformerMLP,
  type MoELayer,
  NaiveGate,
  type Nest,
  type Route,
} from '../../src/index.js';
import { leavesOf, mapNest } from '../../src/nest.js';
import { Comparison } from './comparison.js';

const dModel = 6;
const { world, device } = joinTestRanks();
const place = { dtype: 'float64', device } as const;
const { rank, size } = world;
const results = new Comparison(1e-12);

interface Pair {
  text: Tensor;
  more: readonly [Tensor];
}

class PairGate extends NaiveGate {
  override forward(x: Tensor): Route {
    return super.forward((x as unknown as Pair).text);
  }
}

/** Two inputs to two outputs of other widths. */
class PairExpert extends nn.Module {
  readonly text = new nn.Linear(dModel, 2);
  readonly other = new nn.Linear(3, 4);
  override forward({ text, more: [other] }: Pair): Pair {
    return { text: this.text.call(text), more: [this.other.call(other).tanh()] };
  }
}

interface Case {
  name: string;
  make: (sliceGroup: ProcessGroup | null) => MoELayer<Nest, Nest>;
  /** Tokens for a layer. */
  input: (tokens: number) => Nest;
  masked?: boolean;
}

const tokensOf = (tokens: number, width = dModel): Tensor =>
  randn([tokens, width], { ...place, requiresGrad: true });
const ofTensors = {
  make: (sliceGroup: ProcessGroup | null) =>
    new FMoETransformerMLP({ numExpert: 4, dModel, dHidden: 5, sliceGroup }) as MoELayer<Nest, Nest>,
  input: (tokens: number) => tokensOf(tokens),
};
const kinds: Case[] = [
  { ...ofTensors, name: 'one tensor' },
  { ...ofTensors, name: 'a mask', masked: true },
  {
    name: 'a nest',
    make: (sliceGroup) =>
      new FMoE({ numExpert: 4, dModel, expert: PairExpert, gate: PairGate, sliceGroup }) as MoELayer<
        Nest,
        Nest
      >,
    input: (tokens) => ({ text: tokensOf(tokens), more: [tokensOf(tokens, 3)] }),
  },
];

/** Σ weight · output, the weights of a rank. Their mean over the ranks are the weights of the mean loss. */
function lossOf(output: Nest, ofRank: number | 'mean', agree: boolean): Tensor {
  manualSeed(50);
  const terms = leavesOf(output).map((leaf) => {
    const [same, other] = [randn(leaf.shape, place), randn(leaf.shape, place)];
    const factor = agree ? 0 : ofRank === 'mean' ? (size - 1) / 2 : ofRank;
    return leaf.mul(same.add(other.mul(factor))).sum();
  });
  return terms.reduce((a, b) => a.add(b));
}

function run({ name, make, input, masked }: Case, tokens: number, agree: boolean): void {
  manualSeed(7);
  const alone = make(null).to(place);
  const sliced = make(world).to(place);
  sliced.loadStateDict(alone.stateDict());
  if (masked) {
    const mask = arange(tokens, { dtype: 'int64', device }).remainder(3).eq(1);
    for (const layer of [alone, sliced]) layer.mask = mask;
  }
  manualSeed(100 + tokens);
  const x = input(tokens);
  const own = mapNest(x, (leaf) => leaf.detach().clone().requiresGrad_(true));

  const expected = alone.call(x);
  lossOf(expected, 'mean', agree).backward();
  const actual = sliced.call(own);
  lossOf(actual, rank, agree).backward();

  const title = `${name}, ${tokens} tokens, ${agree ? 'the same loss' : 'other losses'} on the ranks`;
  const compareAll = (what: string, ours: readonly Tensor[], theirs: readonly Tensor[], grads: boolean) => {
    for (const [index, leaf] of theirs.entries()) {
      const pick = (tensor: Tensor) => (grads ? tensor.grad : tensor.detach());
      results.compare(`${title}: ${what} ${index}`, pick(ours[index]!), pick(leaf));
    }
  };
  compareAll('output', leavesOf(actual), leavesOf(expected), false);
  compareAll('gradient of the input', leavesOf(own), leavesOf(x), true);
  for (const parameter of sliced.parameters()) {
    if (parameter.grad !== null) world.allReduce_(parameter.grad);
  }
  compareAll('gradient of parameter', [...sliced.parameters()], [...alone.parameters()], true);
}

for (const kind of kinds) {
  for (const tokens of [...new Set([0, 1, size, 2 * size + 1, 3 * size - 1])]) {
    for (const agree of [true, false]) await scoped(async () => run(kind, tokens, agree));
  }
}
results.print(rank);
