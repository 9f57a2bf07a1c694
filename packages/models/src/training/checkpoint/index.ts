export { type CheckpointState, readStateFile } from './checkpoint-file.js';
export { type CheckpointEntry, CheckpointFolder } from './checkpoint-folder.js';
export { type LoadedCheckpoint, loadCheckpoint, loadModel } from './load-checkpoint.js';
export { type RunTensors, saveCheckpoint } from './save-checkpoint.js';
