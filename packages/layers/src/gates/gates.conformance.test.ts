import { gateConformance } from '../testing/index.js';
import type { BaseGate, GateOptions } from './base-gate.js';
import {
  BiasBalancedGate,
  DCGate,
  ExpertChoiceGate,
  FasterGate,
  GroupLimitedGate,
  GShardGate,
  NaiveGate,
  NoisyGate,
  SwipeGate,
  SwitchGate,
  TokenRoundingGate,
  TopKGate,
  ZeroGate,
} from './index.js';

const gates: Record<string, (options: GateOptions) => BaseGate> = {
  BiasBalancedGate: (options) => new BiasBalancedGate({ ...options, scoreFunction: 'sigmoid' }),
  DCGate: (options) => new DCGate({ ...options, capacity: 0.4 }),
  ExpertChoiceGate: (options) => new ExpertChoiceGate(options),
  FasterGate: (options) =>
    new FasterGate({
      ...options,
      cluster: { nodeOfExpert: [0, 0, 0, 1, 1, 1], node: 1 },
      outgoingFraction: 0.4,
    }),
  GroupLimitedGate: (options) =>
    new GroupLimitedGate({ ...options, numGroups: 3, groupTopK: 2, biasUpdateRate: 0.01 }),
  GShardGate: (options) => new GShardGate(options),
  'NaiveGate with every option': (options) =>
    new NaiveGate({ ...options, capacity: [0.5, 1], jitter: 0.1, zLossWeight: 0.01, balance: 'importance' }),
  NoisyGate: (options) => new NoisyGate(options),
  SwipeGate: (options) => new SwipeGate({ ...options, binOfExpert: [0, 1, 2, 0, 1, 2], balance: true }),
  TokenRoundingGate: (options) => new TokenRoundingGate({ ...options, tileSize: 4 }),
  TopKGate: (options) => new TopKGate({ ...options, scoreFunction: 'sigmoid', normalize: false }),
};

for (const [name, gate] of Object.entries(gates)) gateConformance(name, gate);
gateConformance('SwitchGate', SwitchGate, { topK: 1 });
gateConformance('ZeroGate', ZeroGate, { topK: 1 });
