export { BaseGate, type GateOptions, type Route } from './base-gate.js';
export type { GateSource } from './gate-factory.js';
export { NaiveGate, type NaiveGateOptions } from './naive-gate.js';
export { NoisyGate } from './noisy-gate.js';
export { routerLogits } from './router-logits.js';
