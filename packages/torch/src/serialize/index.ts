export { type AtomicFileOptions, writeFileAtomic } from './atomic-file.js';
export { loadTorchFile, type SavableValue, saveTorchFile, type TorchValue } from './pt/index.js';
export { loadSafetensors, type SafetensorsContent, saveSafetensors } from './safetensors.js';
export { SafetensorsFile, type TensorInfo } from './safetensors-reader.js';
