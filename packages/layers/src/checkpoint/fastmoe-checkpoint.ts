import {
  checkOptions,
  FmoeError,
  loadSafetensors,
  loadTorchFile,
  type nn,
  saveSafetensors,
  saveTorchFile,
  Tensor,
  type TorchValue,
  tensor,
  tidy,
} from '@fmoe/torch';
import { MoELayer } from '../moe-layer.js';
import { expertLayout } from '../parallel/expert-layout.js';
import { type ExpertForm, toExpertForm } from './expert-form.js';
import { filesOfPart, isMegatronFolder, joinRanks } from './megatron-folder.js';

/** Where the parameters are in a checkpoint. */
export interface ReadCheckpointOptions {
  /**
   * Where the state dict is in a file of PyTorch that holds more than it, such as `'state.model'`. Of a folder of Megatron's the
   * default is `'model'`; `'model.language_model.encoder'` leaves out the names before those of the layers.
   */
  key?: string;
  /** Which model-parallel part of a folder of Megatron's, such as `'mp_rank_01'` or `'mp_rank_00_001'`, where it has several. */
  part?: string;
}

/** Settings of {@link loadFastMoECheckpoint}. */
export interface LoadCheckpointOptions extends nn.LoadStateOptions, ReadCheckpointOptions {}

/** Settings of {@link saveFastMoECheckpoint}. */
export interface SaveCheckpointOptions {
  /** Default `'fused'`. Since version 1.0.1 FastMoE's own layer has one module for each expert. */
  form?: ExpertForm;
}

const wrapper = 'module.';

/**
 * Loads parameters that were saved from FastMoE, or by {@link saveFastMoECheckpoint}: whatever {@link readFastMoECheckpoint}
 * reads, with the experts in either form. Of a model whose experts are spread over ranks each rank takes its own.
 *
 * @returns the keys that the checkpoint lacked and those it had too much
 * @throws FmoeError as {@link readFastMoECheckpoint}; `ERR_STATE_DICT` when it does not fit. The model keeps its values then.
 */
export function loadFastMoECheckpoint(
  model: nn.Module,
  path: string,
  options: LoadCheckpointOptions = {},
): nn.LoadResult {
  checkOptions('loadFastMoECheckpoint', options, ['strict', 'key', 'part']);
  const { strict = true, ...where } = options;
  return tidy(() => {
    const state = toFormOf(model, readFastMoECheckpoint(path, where));
    return model.loadStateDict(ofThisRank(model, state), { strict });
  });
}

/**
 * The parameters of a checkpoint: a state dict in a file of PyTorch or in safetensors (by the name's ending), with or without
 * the prefix `module.` of a wrapper for data parallelism; or the folder in which the plug-in for Megatron-LM saved a model, with
 * the experts of all ranks of data parallelism, numbered in the order of the ranks. Dictionaries in the state dict are joined to
 * names with dots. Optimizers' states are not read.
 *
 * @returns new tensors, owned by the current scope
 * @throws FmoeError `ERR_FILE` when a file cannot be read or holds no state dict, or a rank's file is missing; `ERR_ARGUMENT` when
 * a folder has several parts, or not that one
 */
export function readFastMoECheckpoint(path: string, options: ReadCheckpointOptions = {}): nn.StateDict {
  checkOptions('readFastMoECheckpoint', options, ['key', 'part']);
  const { key, part } = options;
  if (!isMegatronFolder(path)) return withoutWrapper(readState(path, key));
  const files = filesOfPart(path, part);
  return joinRanks(
    path,
    files.map((file) => withoutWrapper(readState(file, key ?? 'model'))),
  );
}

/**
 * Saves a model's parameters for FastMoE: as safetensors where the name ends so, else as a file of PyTorch.
 *
 * @throws FmoeError `ERR_FILE` when the file cannot be written; `ERR_ARGUMENT` when other ranks have some of the experts, for
 * unknown options or forms
 */
export function saveFastMoECheckpoint(
  model: nn.Module,
  path: string,
  options: SaveCheckpointOptions = {},
): void {
  checkOptions('saveFastMoECheckpoint', options, ['form']);
  for (const [name, layer] of spreadLayers(model)) {
    const { ids, total } = layer.localExperts;
    throw new FmoeError(
      'ERR_ARGUMENT',
      `saveFastMoECheckpoint: ${name || 'the model'} has ${ids.length} of its ${total} experts here, the others are on other ranks.`,
      { op: 'saveFastMoECheckpoint', argument: 'model' },
    );
  }
  tidy(() => writeState(path, model.stateDict(), options));
}

/** The layers that have only some of their experts here, by name. */
function spreadLayers(model: nn.Module): [path: string, layer: MoELayer][] {
  return [...model.namedModules()].filter((entry): entry is [string, MoELayer] => {
    const [, layer] = entry;
    return layer instanceof MoELayer && layer.localExperts.ids.length !== layer.localExperts.total;
  });
}

/**
 * Writes what {@link readFastMoECheckpoint} reads of a folder to one file, for use without Megatron and without other ranks.
 *
 * @throws FmoeError as {@link readFastMoECheckpoint} and {@link saveFastMoECheckpoint}
 */
export function mergeFastMoECheckpoint(
  path: string,
  output: string,
  options: ReadCheckpointOptions & SaveCheckpointOptions = {},
): void {
  checkOptions('mergeFastMoECheckpoint', options, ['key', 'part', 'form']);
  const { form = 'fused', ...where } = options;
  tidy(() => writeState(output, readFastMoECheckpoint(path, where), { form }));
}

function writeState(path: string, content: nn.StateDict, { form = 'fused' }: SaveCheckpointOptions): void {
  const state = toExpertForm(content, form);
  if (isSafetensors(path)) saveSafetensors(path, state);
  else saveTorchFile(path, state);
}

/** The experts in the form that the model has; a model may have both, in different layers. */
function toFormOf(model: nn.Module, state: nn.StateDict): nn.StateDict {
  const anyNumber = (key: string): string => key.replace(/(^|\.)experts\.\d+\./, '$1experts.#.');
  const wanted = new Set(Object.keys(model.stateDict()).map(anyNumber));
  const missing = (candidate: nn.StateDict) =>
    Object.keys(candidate).filter((key) => !wanted.has(anyNumber(key))).length;
  const candidates = [state, ...(['fused', 'perExpert'] as const).map((form) => toExpertForm(state, form))];
  return candidates.reduce((best, candidate) => (missing(candidate) < missing(best) ? candidate : best));
}

/** Without the experts of other ranks, and this rank's under the names that they have here. */
function ofThisRank(model: nn.Module, state: nn.StateDict): nn.StateDict {
  const own = { ...state };
  const layout = expertLayout(model);
  for (const [path, layer] of spreadLayers(model)) {
    const list = path === '' ? 'experts' : `${path}.experts`;
    for (const key of Object.keys(own)) {
      const number = key.startsWith(`${list}.`) ? /^\d+(?=\.)/.exec(key.slice(list.length + 1)) : null;
      if (number !== null && Number(number[0]) < layer.localExperts.total) delete own[key];
    }
  }
  for (const [key, { name, experts }] of layout) {
    const whole = state[name];
    if (whole === undefined) continue;
    own[key] =
      experts === undefined || experts.ids.length === experts.total || whole.shape[0] !== experts.total
        ? whole
        : whole.indexSelect(0, tensor([...experts.ids], { dtype: 'int64', device: whole.device }));
  }
  return own;
}

function readState(path: string, key: string | undefined): nn.StateDict {
  if (isSafetensors(path)) return loadSafetensors(path).tensors;
  let value: TorchValue | undefined = loadTorchFile(path, { skipObjects: true });
  for (const name of key?.split('.') ?? []) {
    value = isRecord(value) && Object.hasOwn(value, name) ? value[name] : undefined;
  }
  const state = isRecord(value) ? flatten(value) : undefined;
  if (state !== undefined) return state;
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

/** Dictionaries in dictionaries as one; undefined where there is something else than tensors. */
function flatten(record: { [key: string]: TorchValue }): nn.StateDict | undefined {
  const state: nn.StateDict = {};
  for (const [key, value] of Object.entries(record)) {
    if (value instanceof Tensor) {
      state[key] = value;
      continue;
    }
    const inner = isRecord(value) ? flatten(value) : undefined;
    if (inner === undefined) return undefined;
    for (const [name, item] of Object.entries(inner)) state[`${key}.${name}`] = item;
  }
  return state;
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
