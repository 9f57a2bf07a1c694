export { loadTorchFile, type TorchValue } from './load.js';
export { type SavableValue, saveTorchFile } from './save.js';
