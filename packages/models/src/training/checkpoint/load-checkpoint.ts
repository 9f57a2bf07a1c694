/** Shape letters: M memory length, B batch columns, D model width. */
import {
  cat,
  FmoeError,
  keep,
  manualSeed,
  type nn,
  type optim,
  setRngState,
  type Tensor,
  tidy,
} from '@fmoe/torch';
import {
  type CheckpointState,
  checkFile,
  filesOf,
  readStateFile,
  type StateFile,
} from './checkpoint-file.js';
import { type ExpertLayout, stateName } from './global-names.js';
import { generatorDevices } from './save-checkpoint.js';
import { TensorSource } from './tensor-source.js';

/** The part of a run that a process has. */
export interface RunPart {
  /** Which tensors are those of experts; none are spread where it is empty. */
  layout: ExpertLayout;
  /** Place among the ranks. */
  rank: number;
  ranks: number;
  /** Columns of the batch, first and one past the last. */
  columns: readonly [number, number];
}

/**
 * Loads the weights of a checkpoint into a model, whichever ranks wrote it.
 *
 * @param layout of the experts, when the model has some of them only
 * @throws FmoeError ERR_FILE when the checkpoint is incomplete, cut off or not ours; ERR_STATE_DICT when it is of another model
 */
export function loadModel(
  folder: string,
  model: nn.Module,
  layout: ExpertLayout = new Map(),
): CheckpointState {
  const state = readStateFile(folder);
  const paths = checkedFiles(folder, 'model', state);
  tidy(() => {
    const source = new TensorSource(paths);
    try {
      model.loadStateDict(localState(model, source, layout));
    } finally {
      source.close();
    }
  });
  return state;
}

/** What {@link loadCheckpoint} gives back. */
export interface LoadedCheckpoint {
  state: CheckpointState;
  /** Memories `[M, B, D]` of this process's columns, one for each layer; they belong to no scope. Empty where there are none. */
  memories: Tensor[];
}

/**
 * Brings a model, an optimizer and the random generators to where they were when the checkpoint was saved. All files are
 * checked before anything is changed. Ranks other than those that wrote it take up its experts and columns in their own layout;
 * their generators then start anew.
 *
 * @throws FmoeError ERR_FILE when the checkpoint is incomplete, cut off or not ours; ERR_STATE_DICT when it is of another model
 *   or optimizer
 */
export function loadCheckpoint(
  folder: string,
  { model, optimizer, device }: { model: nn.Module; optimizer: optim.Optimizer; device: string },
  part: RunPart,
): LoadedCheckpoint {
  const state = readStateFile(folder);
  const optimizerFiles = checkedFiles(folder, 'optimizer', state);
  const runFiles = checkedFiles(folder, 'run', state);
  loadModel(folder, model, part.layout);
  tidy(() => loadOptimizer(optimizer, optimizerFiles, state, part.layout));
  const memories = tidy(() => {
    restoreGenerators(runFiles, state, part);
    const [from, to] = part.columns;
    const memories = memoriesOf(runFiles, state).map((all) => all.narrow(1, from, to - from).contiguous());
    return keep(memories.map((memory) => memory.to(device)));
  });
  return { state, memories };
}

function checkedFiles(folder: string, part: 'model' | 'optimizer' | 'run', state: StateFile): string[] {
  return filesOf(part, state.ranks).map((name) => checkFile(folder, name, state));
}

/** What of a source belongs to a model. What the model does not know comes along, so that loading can name it. */
function localState(model: nn.Module, source: TensorSource, layout: ExpertLayout): Record<string, Tensor> {
  const out: Record<string, Tensor> = {};
  const known = new Set<string>();
  for (const name of Object.keys(model.stateDict())) {
    const place = layout.get(name);
    const global = place?.name ?? name;
    known.add(global);
    if (source.has(global)) out[name] = read(source, global, place?.experts);
  }
  // Of a list of experts each rank has some: the others are not unknown.
  const lists = [...layout].flatMap(([name, { name: global, experts }]) =>
    experts === undefined ? [global.replace(/\.experts\.\d+\..*$/, '.experts.'), name] : [],
  );
  for (const name of source.names()) {
    if (!known.has(name) && !lists.some((prefix) => name.startsWith(prefix))) out[name] = source.get(name);
  }
  return out;
}

function read(
  source: TensorSource,
  name: string,
  experts: { total: number; ids: readonly number[] } | undefined,
): Tensor {
  return experts === undefined ? source.get(name) : source.experts(name, experts);
}

function loadOptimizer(
  optimizer: optim.Optimizer,
  paths: readonly string[],
  state: StateFile,
  layout: ExpertLayout,
): void {
  const saved = state.optimizer;
  const source = optimizerSource(paths, state);
  try {
    const own = optimizer.stateDict().param_groups;
    const names = own.flatMap((group) => (group['param_names'] as string[] | undefined) ?? []);
    const states = new Set(source.names().map((name) => name.slice(0, name.indexOf('::'))));
    const tensors: Record<string, Record<string, Tensor>> = {};
    for (const [index, name] of names.entries()) {
      const place = layout.get(name);
      for (const each of states) {
        const global = stateName(each, place?.name ?? name);
        if (!source.has(global)) continue;
        tensors[index] ??= {};
        tensors[index][each] = read(source, global, place?.experts);
      }
    }
    optimizer.loadStateDict({
      state: tensors,
      // The saved options, for the parameters that are here.
      param_groups: saved.map((group, index) => ({ ...group, ...membersOf(own[index] ?? group) })),
    });
  } finally {
    source.close();
  }
}

function membersOf({ params, ...options }: optim.GroupStateDict): optim.GroupStateDict {
  const names = options['param_names'];
  return { params, ...(names !== undefined && { param_names: names }) };
}

/** Those of the same rank where as many ranks go on; else the first rank's, and new ones for the others. */
function restoreGenerators(paths: readonly string[], state: StateFile, { rank, ranks }: RunPart): void {
  const isSame = (state.ranks ?? 1) === ranks;
  if (!isSame && rank > 0) {
    manualSeed(1_000_003 * state.step + rank);
    return;
  }
  const source = new TensorSource([paths[isSame ? rank : 0]!]);
  try {
    for (const name of generatorDevices()) {
      if (source.has(`rng.${name}`)) setRngState(source.get(`rng.${name}`), name);
    }
  } finally {
    source.close();
  }
}

/** The tensors of an optimizer under global names. */
export function optimizerSource(paths: readonly string[], state: StateFile): TensorSource {
  const names = state.optimizer.flatMap((group) => (group['param_names'] as string[] | undefined) ?? []);
  return new TensorSource(paths, (stored) => {
    if (state.ranks !== undefined) return stored;
    const [index, ...rest] = stored.split('.');
    return stateName(rest.join('.'), names[Number(index)] ?? `${index}`);
  });
}

/** The memories of all columns, one for each layer, from those of the chunks that follow each other. */
export function memoriesOf(paths: readonly string[], state: StateFile): Tensor[] {
  const source = new TensorSource(paths, (stored) => (stored.startsWith('mems.') ? stored : undefined));
  try {
    return Array.from({ length: state.memories[0] ?? 0 }, (_, layer) => {
      const chunks = state.memories.map((_, chunk) => {
        const name = `mems.${chunk}.${layer}`;
        if (source.has(name)) return source.get(name);
        throw new FmoeError('ERR_FILE', `${paths[0]} lacks the memory ${name}. Use an earlier checkpoint.`);
      });
      return cat(chunks, 1);
    });
  } finally {
    source.close();
  }
}
