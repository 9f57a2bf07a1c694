/** Shape letters: N all experts, M memory length, B batch columns, D model width. */
import { existsSync, mkdirSync, renameSync, rmSync } from 'node:fs';
import { basename, dirname, join, resolve } from 'node:path';
import { Placement } from '@fmoe/comm';
import { FmoeError, SafetensorsFile, saveSafetensors, type Tensor, tidy } from '@fmoe/torch';
import { syncFolder, writeWholeFile } from '../atomic-write.js';
import {
  checkFile,
  type FileRecord,
  fileOfRank,
  files,
  filesOf,
  type Part,
  parts,
  readStateFile,
  recordOf,
  type StateFile,
  shardedVersion,
  version,
} from './checkpoint-file.js';
import { nameOfExpert } from './global-names.js';
import { memoriesOf, optimizerSource } from './load-checkpoint.js';
import { TensorSource } from './tensor-source.js';

/**
 * Writes the checkpoint of many ranks as one process would have.
 *
 * @param folder of the checkpoint
 * @param output a folder that does not exist
 * @throws FmoeError ERR_FILE when the checkpoint is damaged or the output is there already
 */
export function mergeCheckpoint(folder: string, output: string): void {
  const state = readStateFile(folder);
  convert(folder, output, state, (target) => {
    const { ranks: _, ...rest } = state;
    save(target, files.model, whole(folder, 'model', state), { format: 'pt' });
    const optimizer = optimizerSource(pathsOf(folder, 'optimizer', state), state);
    const names = parameterNames(state);
    const indexed: Record<string, Tensor> = {};
    for (const name of optimizer.names()) {
      const [kind, parameter] = splitStateName(name);
      indexed[`${names.indexOf(parameter)}.${kind}`] = optimizer.get(name);
    }
    save(target, files.optimizer, inOrder(indexed));
    optimizer.close();
    const run = generatorsOf(folder, state);
    for (const [layer, memory] of allMemories(folder, state).entries()) run[`mems.0.${layer}`] = memory;
    save(target, files.run, run);
    return {
      ...rest,
      version,
      memories: [state.memories[0] ?? 0],
      files: records(target, [files.model, files.optimizer, files.run]),
    };
  });
}

/**
 * Writes a checkpoint as so many ranks would have, experts and columns dealt out as evenly as it goes.
 *
 * @throws FmoeError ERR_FILE when the checkpoint is damaged, the output is there already, or it does not say what its experts are
 */
export function splitCheckpoint(folder: string, output: string, ranks: number): void {
  const state = readStateFile(folder);
  const { experts } = state;
  if (experts === undefined) {
    throw new FmoeError(
      'ERR_FILE',
      `${folder} does not say which tensors are those of experts: an older fmoe wrote it. Resume it and save it again.`,
    );
  }
  /** The tensors of one rank, from those of one process. */
  const shareOf = (
    rank: number,
    tensors: Record<string, Tensor>,
    nameOf: (key: string) => string,
  ): Record<string, Tensor> => {
    const own: Record<string, Tensor> = {};
    for (const [key, tensor] of Object.entries(tensors)) {
      const name = nameOf(key);
      const stacked = experts[name];
      const listed = /\.experts\.(\d+)\./.exec(name)?.[1];
      if (stacked !== undefined) {
        for (const id of Placement.even(stacked, ranks).expertsOfRank[rank]!) {
          own[nameOfExpert(key, id)] = tensor.shape[0] === stacked ? tensor.select(0, id) : tensor;
        }
      } else if (listed !== undefined) {
        const total = 1 + Math.max(...parameterNames(state).map((each) => expertOfList(each, name)));
        if (Placement.even(total, ranks).rankOfExpert[Number(listed)] === rank) own[key] = tensor;
      } else if (rank === 0) {
        own[key] = tensor;
      }
    }
    return own;
  };
  convert(folder, output, state, (target) => {
    const model = whole(folder, 'model', state);
    const source = optimizerSource(pathsOf(folder, 'optimizer', state), state);
    const optimizer = Object.fromEntries(source.names().map((name) => [name, source.get(name)]));
    source.close();
    const memories = allMemories(folder, state);
    const columns = memories[0]?.shape[1] ?? 0;
    const names: string[] = [];
    for (let rank = 0; rank < ranks; rank++) {
      const nameOf = (part: Part): string => fileOfRank(part, rank, ranks);
      const run = rank === 0 ? generatorsOf(folder, state) : {};
      const from = Math.floor((rank * columns) / ranks);
      const width = Math.floor(((rank + 1) * columns) / ranks) - from;
      for (const [layer, memory] of memories.entries()) {
        run[`mems.${rank}.${layer}`] = memory.narrow(1, from, width).contiguous();
      }
      save(
        target,
        nameOf('model'),
        shareOf(rank, model, (key) => key),
        { format: 'pt' },
      );
      save(
        target,
        nameOf('optimizer'),
        shareOf(rank, optimizer, (key) => splitStateName(key)[1]),
      );
      save(target, nameOf('run'), run);
      names.push(...parts.map(nameOf));
    }
    return {
      ...state,
      ranks,
      version: shardedVersion,
      memories: new Array<number>(ranks).fill(memories.length),
      files: records(target, names),
    };
  });
}

/** What a checkpoint holds. */
export interface CheckpointDescription {
  step: number;
  /** How many ranks wrote it. */
  ranks: number;
  files: Record<string, FileRecord>;
  /** Of the model, by the names of one process. */
  tensors: { name: string; shape: readonly number[]; dtype: string; experts?: number }[];
}

/** Looks into a checkpoint, without reading its tensors. */
export function describeCheckpoint(folder: string): CheckpointDescription {
  const state = readStateFile(folder);
  const tensors = new Map<string, CheckpointDescription['tensors'][number]>();
  for (const path of pathsOf(folder, 'model', state)) {
    const file = new SafetensorsFile(path);
    for (const stored of file.names()) {
      const { shape, storedDType } = file.info(stored);
      const [name, expert] = stored.split('#') as [string, string | undefined];
      const known = tensors.get(name);
      if (known?.experts !== undefined) known.experts += 1;
      else if (expert !== undefined) tensors.set(name, { name, shape, dtype: storedDType, experts: 1 });
      else tensors.set(name, { name, shape, dtype: storedDType });
    }
    file.close();
  }
  return { step: state.step, ranks: state.ranks ?? 1, files: state.files, tensors: [...tensors.values()] };
}

/** Fills a folder beside the output, which gets its name when it is complete. */
function convert(
  folder: string,
  output: string,
  state: StateFile,
  fill: (target: string) => StateFile,
): void {
  for (const part of parts) for (const name of filesOf(part, state.ranks)) checkFile(folder, name, state);
  const path = resolve(output);
  if (existsSync(path)) throw new FmoeError('ERR_FILE', `${path} is there already.`);
  const temporary = join(dirname(path), `.tmp-${basename(path)}-${process.pid}`);
  try {
    mkdirSync(temporary, { recursive: true });
    const content = tidy(() => fill(temporary));
    writeWholeFile(join(temporary, files.state), `${JSON.stringify(content, null, 2)}\n`);
    syncFolder(temporary);
    renameSync(temporary, path);
  } catch (cause) {
    rmSync(temporary, { recursive: true, force: true });
    if (FmoeError.isInstance(cause)) throw cause;
    throw new FmoeError('ERR_FILE', `Cannot write ${path}: ${(cause as Error).message}`, { cause });
  }
}

function pathsOf(folder: string, part: Part, state: StateFile): string[] {
  return filesOf(part, state.ranks).map((name) => join(folder, name));
}

/** All tensors of a part as they are on one process, parameters in the order of the optimizer first. */
function whole(folder: string, part: Part, state: StateFile): Record<string, Tensor> {
  const source = new TensorSource(pathsOf(folder, part, state));
  const order = parameterNames(state);
  const names = source.names().sort((a, b) => place(order, a) - place(order, b));
  const tensors = Object.fromEntries(names.map((name) => [name, source.get(name)]));
  source.close();
  return tensors;
}

function place(order: readonly string[], name: string): number {
  const at = order.indexOf(name);
  return at < 0 ? order.length : at;
}

function parameterNames(state: StateFile): string[] {
  return state.optimizer.flatMap((group) => (group['param_names'] as string[] | undefined) ?? []);
}

function splitStateName(name: string): [kind: string, parameter: string] {
  const at = name.indexOf('::');
  return [name.slice(0, at), name.slice(at + 2)];
}

function inOrder(indexed: Record<string, Tensor>): Record<string, Tensor> {
  const index = (key: string): number => Number(key.slice(0, key.indexOf('.')));
  return Object.fromEntries(Object.entries(indexed).sort(([a], [b]) => index(a) - index(b)));
}

/** The number of the expert that a tensor belongs to, when it is in the same list of experts as another; else -1. */
function expertOfList(name: string, other: string): number {
  const [own, expected] = [name, other].map((each) => /^(.*)\.experts\.(\d+)\./.exec(each));
  return own && expected && own[1] === expected[1] ? Number(own[2]) : -1;
}

/** The generators of the first rank. */
function generatorsOf(folder: string, state: StateFile): Record<string, Tensor> {
  const source = new TensorSource([pathsOf(folder, 'run', state)[0]!]);
  const names = source.names().filter((name) => name.startsWith('rng.'));
  const generators = Object.fromEntries(names.map((name) => [name, source.get(name)]));
  source.close();
  return generators;
}

function allMemories(folder: string, state: StateFile): Tensor[] {
  return memoriesOf(pathsOf(folder, 'run', state), state);
}

function save(
  folder: string,
  name: string,
  tensors: Record<string, Tensor>,
  metadata?: Record<string, string>,
): void {
  saveSafetensors(join(folder, name), tensors, metadata);
}

function records(folder: string, names: readonly string[]): StateFile['files'] {
  return Object.fromEntries(names.map((name) => [name, recordOf(join(folder, name))]));
}
