/** Functions of neural networks without state: `torch.nn.functional`. */
export {
  elu,
  gelu,
  glu,
  type InplaceOption,
  leakyRelu,
  logSoftmax,
  relu,
  sigmoid,
  silu,
  softmax,
  softplus,
  tanh,
} from './activations.js';
export { type AttentionOptions, scaledDotProductAttention } from './attention.js';
export { type CrossEntropyOptions, crossEntropy, type NllLossOptions, nllLoss } from './class-losses.js';
export { dropout } from './dropout.js';
export { type EmbeddingFunctionOptions, embedding } from './embedding.js';
export { linear } from './linear.js';
export {
  type BinaryCrossEntropyWithLogitsOptions,
  binaryCrossEntropyWithLogits,
  huberLoss,
  type KlDivOptions,
  klDiv,
  l1Loss,
  mseLoss,
  type ReductionOption,
  smoothL1Loss,
} from './losses.js';
export { layerNorm, rmsNorm } from './normalization.js';
