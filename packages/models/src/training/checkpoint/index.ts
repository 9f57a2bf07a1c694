export { type CheckpointState, readStateFile } from './checkpoint-file.js';
export { type CheckpointEntry, CheckpointFolder } from './checkpoint-folder.js';
export {
  type CheckpointDescription,
  describeCheckpoint,
  mergeCheckpoint,
  splitCheckpoint,
} from './convert.js';
export type { ExpertLayout } from './global-names.js';
export { type LoadedCheckpoint, loadCheckpoint, loadModel } from './load-checkpoint.js';
export { type RunTensors, saveCheckpoint } from './save-checkpoint.js';
export { saveSharded } from './save-sharded.js';
