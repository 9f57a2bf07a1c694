export { LocalGroup } from './groups/local-group.js';
export type { ProcessGroup, ReduceOp } from './groups/process-group.js';
export * from './launch/index.js';
export * from './mesh/index.js';
export * from './rendezvous/index.js';
