/** Every gate, for a comparison of experts that are spread over ranks with all of them on one process. */
import { Placement } from '@fmoe/comm';
import { type Tensor, tensor } from '@fmoe/torch';
import {
  BiasBalancedGate,
  DCGate,
  ExpertChoiceGate,
  FasterGate,
  type FasterGateOptions,
  type GateSource,
  GroupLimitedGate,
  GShardGate,
  NaiveGate,
  NoisyGate,
  type Route,
  SwipeGate,
  SwitchGate,
  TokenRoundingGate,
  TopKGate,
  ZeroGate,
} from '../../src/index.js';

/** A gate in the comparison. */
export interface GateCase {
  name: string;
  gate: GateSource;
  /** The gate of the process alone, where its settings depend on the ranks. */
  gateAlone?: GateSource;
  /** All ranks' tokens are one batch to the gate, also when it draws numbers; else each rank's are one. */
  globalBatch: boolean;
  /** Default 2. */
  topK?: number;
}

/** A FasterGate that stands for those of all ranks: its calls are, in turn, those of rank 0, 1, … */
class FasterGateOfEachRank extends FasterGate {
  readonly #nodeOfExpert: readonly number[];
  readonly #nodeOfRank: readonly number[];
  #calls = 0;

  constructor(
    options: Omit<FasterGateOptions, 'cluster'>,
    nodeOfExpert: readonly number[],
    nodeOfRank: readonly number[],
  ) {
    super({ ...options, cluster: { nodeOfExpert, node: nodeOfRank[0]! } });
    this.#nodeOfExpert = nodeOfExpert;
    this.#nodeOfRank = nodeOfRank;
  }

  override forward(x: Tensor): Route {
    const node = this.#nodeOfRank[this.#calls++ % this.#nodeOfRank.length];
    const remote = this.#nodeOfExpert.map((nodeOf) => nodeOf !== node);
    this.remote.copy_(tensor(remote, { dtype: 'bool', device: x.device }));
    return super.forward(x);
  }
}

function fasterCase(numExpert: number, ranks: number): GateCase {
  const options = { outgoingFraction: 0.5 };
  const nodeOfRank = Array.from({ length: ranks }, (_, rank) => Math.floor(rank / 2));
  const nodeOfExpert = Placement.even(numExpert, ranks).rankOfExpert.map((rank) => nodeOfRank[rank]!);
  return {
    name: 'FasterGate',
    globalBatch: false,
    gate: (given) => new FasterGate({ ...given, ...options, cluster: { ranksPerNode: 2 } }),
    gateAlone: (given) => new FasterGateOfEachRank({ ...given, ...options }, nodeOfExpert, nodeOfRank),
  };
}

/** Gates to which each rank's tokens are a batch of their own. */
function perRank(numExpert: number, ranks: number): GateCase[] {
  const gates: [string, GateSource][] = [
    ['ZeroGate', ZeroGate],
    ['NaiveGate', NaiveGate],
    ['NoisyGate', NoisyGate],
    [
      'TopKGate',
      (given) => new TopKGate({ ...given, capacity: 1.1, scoreFunction: 'sigmoid', zLossWeight: 0.1 }),
    ],
    ['GShardGate', GShardGate],
    ['BiasBalancedGate', (given) => new BiasBalancedGate({ ...given, balance: true, biasUpdateRate: 0 })],
    ['GroupLimitedGate', (given) => new GroupLimitedGate({ ...given, numGroups: 4, groupTopK: 1 })],
    ['ExpertChoiceGate', ExpertChoiceGate],
    ['TokenRoundingGate', (given) => new TokenRoundingGate({ ...given, tileSize: 2 })],
  ];
  return [...gates.map(([name, gate]) => ({ name, gate, globalBatch: false })), fasterCase(numExpert, ranks)];
}

/** Gates to which all ranks' tokens are one batch. */
function ofAllTokens(numExpert: number, ranks: number): GateCase[] {
  const globalBatch = true;
  const biased = { globalBatch, balance: true, biasUpdateRate: 0.05 };
  const gates: [string, GateSource][] = [
    ['NaiveGate', (given) => new NaiveGate({ ...given, globalBatch })],
    ['NoisyGate', (given) => new NoisyGate({ ...given, globalBatch })],
    ['GShardGate', (given) => new GShardGate({ ...given, globalBatch })],
    ['BiasBalancedGate', (given) => new BiasBalancedGate({ ...given, ...biased })],
    [
      'GroupLimitedGate',
      (given) => new GroupLimitedGate({ ...given, ...biased, numGroups: 4, groupTopK: 1 }),
    ],
    ['ExpertChoiceGate', (given) => new ExpertChoiceGate({ ...given, globalBatch })],
  ];
  const binOfExpert = Placement.even(numExpert, ranks).rankOfExpert;
  const dc = { balance: false, globalBatch };
  return [
    ...gates.map(([name, gate]) => ({ name: `${name} of all tokens`, gate, globalBatch })),
    {
      name: 'SwitchGate of all tokens',
      topK: 1,
      globalBatch,
      gate: (given) => new SwitchGate({ ...given, topK: 1, globalBatch }),
    },
    {
      name: 'DCGate of all tokens',
      globalBatch,
      gate: (given) => new DCGate({ ...given, ...dc, capacity: 0.5 }),
      gateAlone: (given) => new DCGate({ ...given, ...dc, capacity: 0.5 / ranks }),
    },
    {
      name: 'SwipeGate of all tokens',
      globalBatch,
      gate: (given) => new SwipeGate({ ...given, globalBatch }),
      gateAlone: (given) => new SwipeGate({ ...given, globalBatch, binOfExpert }),
    },
  ];
}

/** Every gate of the package. */
export const gateCases = (numExpert: number, ranks: number): GateCase[] => [
  ...perRank(numExpert, ranks),
  ...ofAllTokens(numExpert, ranks),
];
