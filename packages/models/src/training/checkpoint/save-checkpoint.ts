import { join } from 'node:path';
import { expertLayout } from '@fmoe/layers';
import { cuda, getRngState, type nn, type optim, saveSafetensors, type Tensor, tidy } from '@fmoe/torch';
import { writeWholeFile } from '../atomic-write.js';
import { type CheckpointState, files, format, recordOf, type StateFile, version } from './checkpoint-file.js';
import { stackedExperts } from './global-names.js';

/** The parts of a run that have tensors. */
export interface RunTensors {
  model: nn.Module;
  optimizer: optim.Optimizer;
  /** Memories of each chunk of the batch. */
  memories: readonly (readonly Tensor[])[];
}

/** Every device whose generator may be used. */
export function generatorDevices(): string[] {
  return ['cpu', ...Array.from({ length: cuda.deviceCount() }, (_, index) => `cuda:${index}`)];
}

/**
 * Writes a checkpoint into a folder: everything that a run needs to go on bit for bit. Each file is on the disk when this
 * returns; `state.json` comes last and holds the checksums of the others.
 */
export function saveCheckpoint(
  folder: string,
  state: Omit<CheckpointState, 'optimizer' | 'memories'>,
  { model, optimizer, memories }: RunTensors,
): void {
  const { state: tensorsOf, param_groups } = optimizer.stateDict();
  tidy(() => {
    saveSafetensors(join(folder, files.model), model.stateDict(), { format: 'pt' });
    saveSafetensors(join(folder, files.optimizer), flatten(tensorsOf));
    const run: Record<string, Tensor> = {};
    for (const device of generatorDevices()) run[`rng.${device}`] = getRngState(device);
    for (const [chunk, tensors] of memories.entries()) {
      for (const [layer, tensor] of tensors.entries()) run[`mems.${chunk}.${layer}`] = tensor;
    }
    saveSafetensors(join(folder, files.run), run);
  });
  const names = [files.model, files.optimizer, files.run];
  const content: StateFile = {
    format,
    version,
    ...state,
    experts: stackedExperts(expertLayout(model)),
    optimizer: param_groups,
    memories: memories.map((tensors) => tensors.length),
    files: Object.fromEntries(names.map((name) => [name, recordOf(join(folder, name))])),
  };
  writeWholeFile(join(folder, files.state), `${JSON.stringify(content, null, 2)}\n`);
}

function flatten(state: optim.OptimizerStateDict['state']): Record<string, Tensor> {
  const out: Record<string, Tensor> = {};
  for (const [index, tensors] of Object.entries(state)) {
    // A running optimizer keeps tensors only; plain numbers come from PyTorch's files.
    for (const [name, tensor] of Object.entries(tensors)) out[`${index}.${name}`] = tensor as Tensor;
  }
  return out;
}
