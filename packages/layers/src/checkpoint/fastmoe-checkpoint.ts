import {
  FmoeError,
  loadSafetensors,
  loadTorchFile,
  type nn,
  saveSafetensors,
  saveTorchFile,
  Tensor,
  type TorchValue,
  tidy,
} from '@fmoe/torch';
import { type ExpertForm, toExpertForm } from './expert-form.js';

/** Settings of {@link loadFastMoECheckpoint}. */
export interface LoadCheckpointOptions extends nn.LoadStateOptions {
  /** Where the state dict is in a PyTorch file that holds more than it, such as `'model'` or `'state.model'`. */
  key?: string;
}

/** Settings of {@link saveFastMoECheckpoint}. */
export interface SaveCheckpointOptions {
  /** Default `'fused'`. Since version 1.0.1 FastMoE's own layer has one module for each expert. */
  form?: ExpertForm;
}

const wrapper = 'module.';

/**
 * Loads parameters that were saved from FastMoE, or by {@link saveFastMoECheckpoint}: a state dict in a file of PyTorch or in
 * safetensors (by the name's ending), with the experts in either form, with or without the prefix `module.` of a wrapper for
 * data parallelism.
 *
 * @returns the keys that the file lacked and those it had too much
 * @throws FmoeError `ERR_FILE` when the file cannot be read or holds no state dict; `ERR_STATE_DICT` when it does not fit. The
 * model keeps its values then.
 */
export function loadFastMoECheckpoint(
  model: nn.Module,
  path: string,
  options: LoadCheckpointOptions = {},
): nn.LoadResult {
  return tidy(() => {
    const { key, ...loading } = options;
    const state = withoutWrapper(readState(path, key));
    return model.loadStateDict(toFormOf(model, state), loading);
  });
}

/**
 * Saves a model's parameters for FastMoE: as safetensors where the name ends so, else as a file of PyTorch.
 *
 * @throws FmoeError `ERR_FILE` when the file cannot be written
 */
export function saveFastMoECheckpoint(
  model: nn.Module,
  path: string,
  options: SaveCheckpointOptions = {},
): void {
  tidy(() => {
    const state = toExpertForm(model.stateDict(), options.form ?? 'fused');
    if (isSafetensors(path)) saveSafetensors(path, state);
    else saveTorchFile(path, state);
  });
}

/** The experts in the form that the model has; a model may have both, in different layers. */
function toFormOf(model: nn.Module, state: nn.StateDict): nn.StateDict {
  const wanted = new Set(Object.keys(model.stateDict()));
  const missing = (candidate: nn.StateDict) =>
    Object.keys(candidate).filter((key) => !wanted.has(key)).length;
  const candidates = [state, ...(['fused', 'perExpert'] as const).map((form) => toExpertForm(state, form))];
  return candidates.reduce((best, candidate) => (missing(candidate) < missing(best) ? candidate : best));
}

function readState(path: string, key: string | undefined): nn.StateDict {
  if (isSafetensors(path)) return loadSafetensors(path).tensors;
  let value: TorchValue | undefined = loadTorchFile(path);
  for (const name of key?.split('.') ?? []) {
    value = isRecord(value) && Object.hasOwn(value, name) ? value[name] : undefined;
  }
  if (isRecord(value) && Object.values(value).every((item) => item instanceof Tensor)) {
    return value as nn.StateDict;
  }
  const found = isRecord(value)
    ? `it has the keys ${Object.keys(value).slice(0, 5).join(', ')}`
    : 'it is none';
  throw new FmoeError(
    'ERR_FILE',
    `loadFastMoECheckpoint: ${path}: expected a state dict${key ? ` at '${key}'` : ''}; ${found}. ` +
      "Say where it is: { key: 'model' }.",
    { op: 'loadFastMoECheckpoint', argument: 'path' },
  );
}

function withoutWrapper(state: nn.StateDict): nn.StateDict {
  const keys = Object.keys(state);
  if (keys.length === 0 || !keys.every((key) => key.startsWith(wrapper))) return state;
  return Object.fromEntries(keys.map((key) => [key.slice(wrapper.length), state[key] as Tensor]));
}

function isSafetensors(path: string): boolean {
  return path.endsWith('.safetensors');
}

function isRecord(value: TorchValue | undefined): value is { [key: string]: TorchValue } {
  return typeof value === 'object' && value !== null && !Array.isArray(value) && !(value instanceof Tensor);
}
