export * from './balance/index.js';
export * from './experts/index.js';
export { FMoE, type FMoEOptions } from './fmoe.js';
export { FMoETransformerMLP, type FMoETransformerMLPOptions } from './fmoe-transformer-mlp.js';
export * from './gates/index.js';
export { MoELayer, type MoEOptions } from './moe-layer.js';
