export { type ExpertForm, toExpertForm } from './expert-form.js';
export {
  type LoadCheckpointOptions,
  loadFastMoECheckpoint,
  type SaveCheckpointOptions,
  saveFastMoECheckpoint,
} from './fastmoe-checkpoint.js';
