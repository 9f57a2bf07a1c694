export type { ExpertActivation } from './expert-activation.js';
export type { ExpertSource, ExpertSources } from './expert-factory.js';
export { ExpertMLP, type ExpertMLPOptions } from './expert-mlp.js';
export { FMoELinear, type FMoELinearOptions } from './fmoe-linear.js';
export { GatedActivation, GEGLU, ReGLU, SwiGLU } from './gated-activation.js';
export { addLoRA, LoRALinear, type LoRAOptions, mergeLoRA } from './lora.js';
export { ZeroExpert } from './null-experts.js';
