export { BaseGate, type GateGroup, type GateOptions } from './base-gate.js';
export { BiasBalancedGate, type BiasBalancedGateOptions } from './bias-balanced-gate.js';
export type { Capacity } from './capacity.js';
export { DCGate } from './dc-gate.js';
export { ExpertChoiceGate, type ExpertChoiceGateOptions } from './expert-choice-gate.js';
export { type ClusterDescription, FasterGate, type FasterGateOptions } from './faster-gate.js';
export { type GateSource, makeGate } from './gate-factory.js';
export { GroupLimitedGate, type GroupLimitedGateOptions } from './group-limited-gate.js';
export { GShardGate, type GShardGateOptions } from './gshard-gate.js';
export { NaiveGate } from './naive-gate.js';
export { NoisyGate } from './noisy-gate.js';
export {
  type ExpertRoute,
  type ResolvedRoute,
  type Route,
  type RouteContext,
  resolveRoute,
  type TokenRoute,
} from './route.js';
export {
  type BalanceKind,
  type Choice,
  type Demand,
  LinearGate,
  RouterGate,
  type RouterOptions,
} from './router-gate.js';
export { type RouterDtype, routerLogits } from './router-logits.js';
export { SwipeGate, type SwipeGateOptions } from './swipe-gate.js';
export { SwitchGate } from './switch-gate.js';
export { TokenRoundingGate, type TokenRoundingGateOptions } from './token-rounding-gate.js';
export { TopKGate, type TopKGateOptions } from './topk-gate.js';
export { ZeroGate } from './zero-gate.js';
