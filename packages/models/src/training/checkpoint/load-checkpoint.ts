import {
  FmoeError,
  keep,
  loadSafetensors,
  type nn,
  type optim,
  setRngState,
  type Tensor,
  tidy,
} from '@fmoe/torch';
import { type CheckpointState, checkFile, files, readStateFile } from './checkpoint-file.js';
import { generatorDevices } from './save-checkpoint.js';

/**
 * Loads the weights of a checkpoint into a model.
 *
 * @throws FmoeError ERR_FILE when the checkpoint is incomplete, cut off or not ours; ERR_STATE_DICT when it is of another model
 */
export function loadModel(folder: string, model: nn.Module): CheckpointState {
  const state = readStateFile(folder);
  const path = checkFile(folder, files.model, state);
  tidy(() => {
    model.loadStateDict(loadSafetensors(path).tensors);
  });
  return state;
}

/** What {@link loadCheckpoint} gives back. */
export interface LoadedCheckpoint {
  state: CheckpointState;
  /** Memories of each chunk of the batch, on the CPU or the device given; they belong to no scope. */
  memories: Tensor[][];
}

/**
 * Brings a model, an optimizer and the random generators to where they were when the checkpoint was saved. All files are
 * checked before anything is changed.
 *
 * @throws FmoeError ERR_FILE when the checkpoint is incomplete, cut off or not ours; ERR_STATE_DICT when it is of another model
 *   or optimizer
 */
export function loadCheckpoint(
  folder: string,
  { model, optimizer, device }: { model: nn.Module; optimizer: optim.Optimizer; device: string },
): LoadedCheckpoint {
  const state = readStateFile(folder);
  const optimizerFile = checkFile(folder, files.optimizer, state);
  const runFile = checkFile(folder, files.run, state);
  loadModel(folder, model);
  tidy(() => {
    optimizer.loadStateDict({
      state: unflatten(loadSafetensors(optimizerFile).tensors),
      param_groups: state.optimizer,
    });
  });
  const memories = tidy(() => {
    const { tensors } = loadSafetensors(runFile);
    for (const name of generatorDevices()) {
      const generator = tensors[`rng.${name}`];
      if (generator !== undefined) setRngState(generator, name);
    }
    return keep(
      state.memories.map((count, chunk) =>
        Array.from({ length: count }, (_, layer) => {
          const memory = tensors[`mems.${chunk}.${layer}`];
          if (memory !== undefined) return memory.to(device);
          throw new FmoeError(
            'ERR_FILE',
            `${runFile} lacks the memory mems.${chunk}.${layer}. Use an earlier checkpoint.`,
          );
        }),
      ),
    );
  });
  return { state, memories };
}

function unflatten(tensors: Record<string, Tensor>): Record<string, Record<string, Tensor>> {
  const out: Record<string, Record<string, Tensor>> = {};
  for (const [key, tensor] of Object.entries(tensors)) {
    const at = key.indexOf('.');
    const index = key.slice(0, at);
    out[index] ??= {};
    out[index][key.slice(at + 1)] = tensor;
  }
  return out;
}
