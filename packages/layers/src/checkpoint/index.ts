export { type ExpertForm, toExpertForm } from './expert-form.js';
export {
  type LoadCheckpointOptions,
  loadFastMoECheckpoint,
  mergeFastMoECheckpoint,
  type ReadCheckpointOptions,
  readFastMoECheckpoint,
  type SaveCheckpointOptions,
  saveFastMoECheckpoint,
} from './fastmoe-checkpoint.js';
export { isMegatronFolder } from './megatron-folder.js';
