export { type AtomicFileOptions, writeFileAtomic } from './atomic-file.js';
export { loadSafetensors, type SafetensorsContent, saveSafetensors } from './safetensors.js';
export { SafetensorsFile, type TensorInfo } from './safetensors-reader.js';
