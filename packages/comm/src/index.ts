export * from './exchange/index.js';
export {
  type GradientBucket,
  GradientReducer,
  type GradientReducerOptions,
} from './gradients/gradient-reducer.js';
export { type InitOptions, initProcessGroup } from './groups/init-process-group.js';
export { LocalGroup } from './groups/local-group.js';
export { type MpiFamily, MpiGroup, mpiFamily } from './groups/mpi-group.js';
export { NcclGroup } from './groups/nccl-group.js';
export type { Backend, ProcessGroup, ReduceOp } from './groups/process-group.js';
export type { Work } from './groups/work.js';
export * from './launch/index.js';
export { loadComm } from './load.js';
export * from './mesh/index.js';
export * from './rendezvous/index.js';
