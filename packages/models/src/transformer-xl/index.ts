export { AdaptiveEmbedding } from './adaptive-embedding.js';
export {
  resolveTransformerXLConfig,
  type TransformerXLConfig,
  type TransformerXLOptions,
} from './config.js';
export { DecoderLayer } from './decoder-layer.js';
export { type InitOptions, initializeTransformerXL } from './init.js';
export { SegmentMemory } from './memory.js';
export { TransformerXL, type TransformerXLOutput } from './model.js';
export { type GateName, type MoEConfig, namedGates } from './moe-config.js';
export { MoEPositionwiseFF, type MoEPositionwiseFFOptions } from './moe-positionwise-ff.js';
export { PositionalEmbedding } from './positional-embedding.js';
export { PositionwiseFF, type PositionwiseFFOptions } from './positionwise-ff.js';
export {
  type AttentionContext,
  RelativeAttention,
  type RelativeAttentionOptions,
} from './relative-attention.js';
export { SoftmaxCriterion } from './softmax-criterion.js';
