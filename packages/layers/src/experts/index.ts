export type { ExpertSource } from './expert-factory.js';
export { ExpertMLP, type ExpertMLPOptions } from './expert-mlp.js';
export { FMoELinear, type FMoELinearOptions } from './fmoe-linear.js';
