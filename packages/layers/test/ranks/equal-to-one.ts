/**
 * Runs on every rank: a layer whose experts are spread over all ranks, next to the same layer on this process alone with the tokens
 * of all ranks. Prints one line of JSON: how many comparisons there were, and what differs.
 *
 * Shape letters: W ranks, T tokens of a rank, D width, N all experts.
 */
import { DeviceMesh, Placement, type ProcessGroup } from '@fmoe/comm';
import { joinTestRanks } from '@fmoe/comm/testing';
import { cat, manualSeed, nn, noGrad, optim, randn, scoped, type Tensor, zeros } from '@fmoe/torch';
import {
  addLoRA,
  collectBalanceLoss,
  DistributedGroupedDataParallel,
  expertLayout,
  FMoE,
  FMoETransformerMLP,
  type GateSource,
  type MoELayer,
  NaiveGate,
} from '../../src/index.js';
import { TwoLayerExpert } from '../experts.js';
import { fixedGate } from '../fixed-gate.js';
import { Comparison } from './comparison.js';
import { gateCases } from './gate-cases.js';

interface Precision {
  /** Of a difference, relative to the largest expected number and at least 1. */
  tolerance: number;
  steps: number;
  /** Whether logits of other products of the same numbers may choose other experts. */
  roughLogits?: boolean;
}

/** With u the unit roundoff: what differs is the order of sums and, of the gradients, which are rounded between. */
const precisions: Record<string, Precision> = {
  float64: { tolerance: 1e-12, steps: 5 },
  // Sums of up to about 10² terms: 10² u with u = 2^-24, and some more for the steps.
  float32: { tolerance: 1e-5, steps: 2 },
  // Some ten operations in a row that each round, and a sum over the ranks that rounds on the way: 16 u with u = 2^-9.
  bfloat16: { tolerance: 2 ** -5, steps: 1, roughLogits: true },
};

const dModel = 6;
const dtype = (process.argv[2] ?? 'float64') as 'float64' | 'float32' | 'bfloat16';
const { tolerance, steps, roughLogits = false } = precisions[dtype]!;
const learningRate = 0.1;
const balanceWeight = 0.1;

interface Case {
  name: string;
  numExpert: number;
  topK: number;
  experts: 'fused' | 'single steps' | 'modules' | 'list';
  /** Tokens of each rank. */
  tokens: (rank: number) => number;
  placement?: Placement;
  gate: GateSource;
  /** The gate of the process alone, where its settings depend on the number of ranks. */
  gateAlone?: GateSource;
  /** Every expert is on so many ranks. Default 1. */
  copies?: number;
  /** Low-rank updates are trained in the place of the experts' weights. */
  lora?: boolean;
  /** All ranks' tokens are one batch to the gate, also when it draws numbers. */
  globalBatch?: boolean;
}

const { world, device } = joinTestRanks();
const { rank, size } = world;
const place = { dtype, device } as const;
const results = new Comparison(tolerance);
/** For every expert on two ranks. */
const mesh = size === 4 ? new DeviceMesh<ProcessGroup>(world, { data: 2, expert: 2 }) : null;

const uneven = (of: number): number => 3 + 2 * of;
const withOut = (of: number): number => (of === size - 1 && size > 1 ? 0 : 4 + of);
const even = (): number => 5;

/** Experts dealt out unevenly and out of order: the last rank has most of them; with three ranks or more the first has none. */
function oddPlacement(numExpert: number): Placement {
  const first = size > 2 ? 1 : 0;
  const ranks = Array.from({ length: numExpert }, (_, expert) =>
    expert % 3 === 0 ? first + (expert % (size - first)) : size - 1,
  );
  return Placement.ofRanks(ranks, size);
}

function allCases(): Case[] {
  const cases: Case[] = [];
  const base = { topK: 2, tokens: uneven, gate: NaiveGate as GateSource };
  for (const numExpert of [8, 12]) {
    for (const experts of ['fused', 'single steps', 'modules', 'list'] as const) {
      cases.push({ ...base, name: experts, numExpert, experts });
      cases.push({
        ...base,
        name: `${experts}, placed unevenly`,
        numExpert,
        experts,
        placement: oddPlacement(numExpert),
      });
    }
    cases.push({ ...base, name: 'a rank without tokens', numExpert, experts: 'fused', tokens: withOut });
    cases.push({
      ...base,
      name: 'a rank without tokens, modules',
      numExpert,
      experts: 'modules',
      tokens: withOut,
    });
    // Expert 0 and the last one: with several ranks each rank but two gets no rows.
    const toOne = fixedGate([[0, numExpert - 1]]);
    cases.push({ ...base, name: 'all tokens to the same experts', numExpert, experts: 'fused', gate: toOne });
    const toFirst = fixedGate([[0]]);
    cases.push({
      ...base,
      name: 'all tokens to one rank',
      numExpert,
      experts: 'list',
      gate: toFirst,
      topK: 1,
    });
  }
  for (const experts of ['fused', 'single steps'] as const) {
    const placement = oddPlacement(12);
    cases.push({ ...base, name: `LoRA, ${experts}`, numExpert: 8, experts, lora: true });
    cases.push({ ...base, name: `LoRA, ${experts}, odd`, numExpert: 12, experts, placement, lora: true });
  }
  const numExpert = 8;
  const fused = { ...base, numExpert, experts: 'fused' as const };
  for (const gateCase of gateCases(numExpert, size)) {
    cases.push({ ...fused, ...gateCase, tokens: gateCase.globalBatch ? uneven : even });
  }
  if (size === 4) {
    for (const experts of ['fused', 'modules', 'list'] as const) {
      cases.push({ ...base, name: `${experts}, two of each`, numExpert, experts, copies: 2 });
    }
  }
  return cases;
}

/** The layer, spread over a group or with all experts here. */
function makeLayer(test: Case, group: ProcessGroup | null): MoELayer {
  const { numExpert, topK, experts, placement } = test;
  manualSeed(7);
  const gate = group === null ? (test.gateAlone ?? test.gate) : test.gate;
  const spread = group === null ? {} : { moeGroup: group, ...(placement && { placement }) };
  const options = { numExpert, topK, dModel, gate, ...spread };
  const layer =
    experts === 'fused' || experts === 'single steps'
      ? new FMoETransformerMLP({ ...options, dHidden: 5, activation: 'gelu', fused: experts === 'fused' })
      : new FMoE({
          ...options,
          expert:
            experts === 'modules'
              ? class extends TwoLayerExpert {
                  constructor(width: number) {
                    super(width, 4);
                  }
                }
              : Array.from({ length: numExpert }, (_, index) =>
                  index % 3 === 1
                    ? (width: number) => new nn.Linear(width, width)
                    : (width: number) => new TwoLayerExpert(width, 3 + index),
                ),
        });
  if (test.lora) addLoRA(layer, { rank: 2 });
  return layer.to(place);
}

function tokensOf(test: Case, of: number, step: number): Tensor {
  manualSeed(1000 * step + of);
  return randn([test.tokens(of), dModel], { dtype: 'float64' }).to(place);
}

/** A loss that tells the elements of the output apart. */
function lossOf(output: Tensor, of: number): Tensor {
  manualSeed(50 + of);
  return output
    .mul(randn(output.shape, { dtype: 'float64' }).to(place))
    .sum()
    .add(output.square().sum());
}

/** What a gate draws, it draws from here: for each rank another sequence, or for all tokens one. */
function seedDraws(test: Case, of: number, step: number): void {
  manualSeed(9_000_000 + 100 * step + (test.globalBatch ? 0 : of));
}

function balanceOf(layer: nn.Module): Tensor {
  return (collectBalanceLoss(layer) ?? zeros([], place)).mul(balanceWeight);
}

interface Step {
  output: Tensor;
  loss: Tensor;
  x: Tensor;
}

/** Forward and backward of all ranks' tokens on one process; the loss is the mean over the ranks. */
function stepAlone(layer: MoELayer, test: Case, step: number): Step {
  const x = Array.from({ length: size }, (_, of) => tokensOf(test, of, step));
  for (const each of x) each.requiresGrad = true;
  const losses: Tensor[] = [];
  const outputs: Tensor[] = [];
  if (test.globalBatch) {
    seedDraws(test, 0, step);
    const all = layer.call(cat(x));
    let at = 0;
    for (const [of, own] of x.entries()) {
      outputs.push(all.narrow(0, at, own.shape[0]!));
      at += own.shape[0]!;
      losses.push(lossOf(outputs[of]!, of));
    }
    const balance = balanceOf(layer);
    for (const [of, loss] of losses.entries()) losses[of] = loss.add(balance);
  } else {
    for (const [of, own] of x.entries()) {
      seedDraws(test, of, step);
      outputs.push(layer.call(own));
      losses.push(lossOf(outputs[of]!, of).add(balanceOf(layer)));
    }
  }
  losses
    .reduce((a, b) => a.add(b))
    .div(size)
    .backward();
  return { output: outputs[rank]!, loss: losses[rank]!, x: x[rank]! };
}

function stepTogether(parallel: DistributedGroupedDataParallel<MoELayer>, test: Case, step: number): Step {
  const x = tokensOf(test, rank, step);
  x.requiresGrad = true;
  seedDraws(test, rank, step);
  const output = parallel.call(x);
  const loss = lossOf(output, rank).add(balanceOf(parallel));
  loss.backward();
  parallel.allreduceGradients();
  return { output, loss, x };
}

/** Parameters of the process alone by the names that they have on this rank, experts of other ranks left out. */
function counterparts(layer: MoELayer, alone: MoELayer, pick: (parameter: nn.Parameter) => Tensor | null) {
  const layout = expertLayout(layer);
  const all = new Map(alone.namedParameters());
  return [...layer.namedParameters()].map(([name, parameter]) => {
    const place = layout.get(name);
    const whole = pick(all.get(place?.name ?? name)!);
    const ids = place?.experts?.ids;
    const actual = pick(parameter);
    // Of no experts there is nothing to compare.
    if (ids?.length === 0) return { name, actual: null, expected: null };
    const expected = whole && ids ? cat(ids.map((id) => whole.narrow(0, id, 1))) : whole;
    return { name, actual, expected };
  });
}

function descend(layer: nn.Module): void {
  noGrad(() => {
    for (const parameter of layer.parameters()) {
      if (parameter.grad !== null) parameter.sub_(parameter.grad.mul(learningRate));
    }
  });
  layer.zeroGrad();
}

function run(test: Case): void {
  const alone = makeLayer(test, null);
  const layer = makeLayer(test, test.copies === 2 ? mesh!.group('expert') : world);
  if (test.copies === 2) layer.markParallelComm('experts');
  const title = `${test.numExpert} experts, ${test.name}`;
  for (const { name, actual, expected } of counterparts(layer, alone, (parameter) => parameter)) {
    results.compare(`${title}: initial ${name}`, actual, expected);
  }
  const parallel = new DistributedGroupedDataParallel(layer, {
    groups: { dp: world, ...(test.copies === 2 && { experts: mesh!.group('data') }) },
    shards: test.copies === 2 ? { experts: mesh!.group('expert') } : {},
  });
  for (let step = 0; step < steps; step++) {
    const expected = stepAlone(alone, test, step);
    const actual = stepTogether(parallel, test, step);
    const at = `${title}, step ${step}`;
    results.compare(`${at}: output`, actual.output, expected.output);
    results.compare(`${at}: loss`, actual.loss, expected.loss);
    results.compare(`${at}: gradient of the input`, actual.x.grad, expected.x.grad!.mul(size));
    for (const each of counterparts(layer, alone, (parameter) => parameter.grad)) {
      results.compare(`${at}: gradient of ${each.name}`, each.actual, each.expected);
    }
    const norm = parallel.clipGradNorm_(0.5);
    results.compare(`${at}: norm of all gradients`, norm, optim.clipGradNorm_(alone.parameters(), 0.5));
    descend(alone);
    descend(layer);
  }
  for (const { name, actual, expected } of counterparts(layer, alone, (parameter) => parameter)) {
    results.compare(`${title}: ${name} in the end`, actual, expected);
  }
  parallel.dispose();
}

for (const test of allCases().filter(({ globalBatch }) => !(roughLogits && globalBatch))) {
  await scoped(async () => run(test));
}
results.print(rank);
