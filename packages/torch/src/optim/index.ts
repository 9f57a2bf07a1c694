export { Adagrad, type AdagradOptions } from './adagrad.js';
export { Adam, type AdamOptions, AdamW } from './adam.js';
export { ChainedScheduler } from './chained-scheduler.js';
export { type ClipGradNormOptions, clipGradNorm_, clipGradValue_ } from './clip-grad.js';
export { ConstantLR, type ConstantLROptions } from './constant-lr.js';
export { CosineAnnealingLR, type CosineAnnealingLROptions } from './cosine-annealing-lr.js';
export { GradScaler, type GradScalerOptions, type GradScalerState } from './grad-scaler.js';
export { InverseSqrtLR, type InverseSqrtLROptions } from './inverse-sqrt-lr.js';
export { LambdaLR, type LRLambda } from './lambda-lr.js';
export { LinearLR, type LinearLROptions } from './linear-lr.js';
export {
  LRScheduler,
  type Scheduler,
  type SchedulerStateDict,
  type SchedulerStateValue,
} from './lr-scheduler.js';
export { Optimizer } from './optimizer.js';
export type { GroupStateDict, GroupValue, OptimizerStateDict } from './optimizer-state-dict.js';
export type {
  GradientScaling,
  OptimizerOptions,
  ParameterGroup,
  ParameterGroupInput,
  ParameterInput,
  ParameterList,
  ParameterState,
  TensorSpec,
  UpdateLists,
} from './optimizer-types.js';
export { ReduceLROnPlateau, type ReduceLROnPlateauOptions } from './reduce-lr-on-plateau.js';
export { SequentialLR, withWarmup } from './sequential-lr.js';
export { SGD, type SGDOptions } from './sgd.js';
