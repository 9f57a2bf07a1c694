/** Neural networks: `torch.nn`. */
export {
  ELU,
  GELU,
  GLU,
  LeakyReLU,
  LogSoftmax,
  ReLU,
  Sigmoid,
  SiLU,
  Softmax,
  Softplus,
  Tanh,
} from './activations.js';
export type { AttentionMasks } from './attend.js';
export type { Reduction } from './check.js';
export { Dropout } from './dropout.js';
export { Embedding, type EmbeddingOptions } from './embedding.js';
export type { FactoryOptions } from './factory-options.js';
export * as functional from './functional/index.js';
export { Identity } from './identity.js';
export * as init from './init.js';
export { LayerNorm, type LayerNormOptions } from './layer-norm.js';
export { Linear, type LinearOptions } from './linear.js';
export {
  BCEWithLogitsLoss,
  CrossEntropyLoss,
  HuberLoss,
  KLDivLoss,
  L1Loss,
  MSELoss,
  NLLLoss,
  SmoothL1Loss,
} from './losses.js';
export { type BufferOptions, Module } from './module.js';
export { ModuleDict } from './module-dict.js';
export type { ForwardHook, ForwardPreHook, HookHandle } from './module-hooks.js';
export { ModuleList } from './module-list.js';
export type { ModuleTarget } from './module-move.js';
export { ModuleSequence } from './module-sequence.js';
export {
  MultiheadAttention,
  type MultiheadAttentionCall,
  type MultiheadAttentionOptions,
} from './multihead-attention.js';
export { Parameter } from './parameter.js';
export { ParameterList } from './parameter-list.js';
export { RMSNorm, type RMSNormOptions } from './rms-norm.js';
export { Sequential } from './sequential.js';
export type { LoadResult, LoadStateOptions, StateDict, StateDictOptions } from './state-dict.js';
