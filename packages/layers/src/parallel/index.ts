export {
  clipGlobalGradNorm_,
  type GlobalNormOptions,
  type ShardedParameters,
} from './clip-global-grad-norm.js';
export type { Communicators } from './communicators.js';
export {
  type DataParallelOptions,
  DistributedGroupedDataParallel,
} from './distributed-grouped-data-parallel.js';
export { type ExpertTensor, expertLayout } from './expert-layout.js';
export type { ReduceOptions } from './gradient-buckets.js';
export { drawExperts, type ExpertParameter, type LocalExperts } from './local-experts.js';
