import { createHash } from 'node:crypto';
import { closeSync, openSync, readFileSync, readSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { FmoeError, type optim } from '@fmoe/torch';
import type { IteratorState } from '../../data/ordered-iterator.js';

/** Names of the files of a checkpoint that one process wrote. */
export const files = {
  state: 'state.json',
  /** The model's state dict, under its own names. */
  model: 'model.safetensors',
  /** The optimizer's tensors, `<parameter index>.<name>`. */
  optimizer: 'optimizer.safetensors',
  /** Memories `mems.<chunk>.<layer>` and generator states `rng.<device>`. */
  run: 'run.safetensors',
} as const;

/** The parts of a checkpoint that have tensors. */
export const parts = ['model', 'optimizer', 'run'] as const;
export type Part = (typeof parts)[number];

/** The name of one rank's file, where several ranks wrote a checkpoint. Its tensors have global names (`global-names.ts`). */
export function fileOfRank(part: Part, rank: number, ranks: number): string {
  return `${part}-${`${rank}`.padStart(5, '0')}-of-${`${ranks}`.padStart(5, '0')}.safetensors`;
}

/** The names of all files of a part, by rank. */
export function filesOf(part: Part, ranks: number | undefined): string[] {
  if (ranks === undefined) return [files[part]];
  return Array.from({ length: ranks }, (_, rank) => fileOfRank(part, rank, ranks));
}

/** Marks a `state.json` as one of ours. */
export const format = 'fmoe-checkpoint';
export const version = 1;
/** The version of a checkpoint that several ranks wrote. */
export const shardedVersion = 2;

/** Size and checksum by which a damaged file is told. */
export interface FileRecord {
  bytes: number;
  sha256: string;
}

/** Everything of a run's state that is not a tensor. */
export interface CheckpointState {
  /** Steps done. */
  step: number;
  /** Seconds spent in training steps. */
  seconds: number;
  /** Position in the training data. */
  data: IteratorState;
  schedule: optim.SchedulerStateDict;
  /** Step after which the model was last evaluated. */
  evaluated: number;
  /** The optimizer's parameter groups, in PyTorch's layout. */
  optimizer: optim.GroupStateDict[];
  /** Number of memories of each chunk of the batch; of several ranks each rank's columns are one chunk. */
  memories: number[];
  /** How many ranks wrote it; absent for one process. */
  ranks?: number;
  /** Tensors `[N, …]` of the model with all experts of a layer, and N. */
  experts?: Record<string, number>;
  /** The resolved configuration. */
  config: unknown;
}

/** The content of `state.json`. */
export interface StateFile extends CheckpointState {
  format: typeof format;
  version: number;
  files: Record<string, FileRecord>;
}

/** Size and SHA-256 of a file. */
export function recordOf(path: string): FileRecord {
  const hash = createHash('sha256');
  const buffer = new Uint8Array(1 << 22);
  const descriptor = openSync(path, 'r');
  try {
    let bytes = 0;
    for (;;) {
      const read = readSync(descriptor, buffer, 0, buffer.length, null);
      if (read === 0) return { bytes, sha256: hash.digest('hex') };
      bytes += read;
      hash.update(buffer.subarray(0, read));
    }
  } finally {
    closeSync(descriptor);
  }
}

/**
 * Reads and checks `state.json` of a checkpoint.
 *
 * @throws FmoeError ERR_FILE when it is missing, cut off, or no checkpoint of this version
 */
export function readStateFile(folder: string): StateFile {
  const path = join(folder, files.state);
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch (cause) {
    throw new FmoeError('ERR_FILE', `${folder} is not a checkpoint: it has no readable ${files.state}.`, {
      cause,
    });
  }
  let state: Partial<StateFile>;
  try {
    state = JSON.parse(text) as StateFile;
  } catch (cause) {
    throw new FmoeError('ERR_FILE', `${path} is truncated or damaged. Use an earlier checkpoint.`, { cause });
  }
  if (state?.format !== format || typeof state.step !== 'number' || typeof state.files !== 'object') {
    throw new FmoeError('ERR_FILE', `${path} is not a checkpoint that fmoe wrote.`);
  }
  if (state.version !== (state.ranks === undefined ? version : shardedVersion)) {
    throw new FmoeError(
      'ERR_FILE',
      `${path} has version ${state.version}; this fmoe reads version ${version}. Use the fmoe that wrote it.`,
    );
  }
  return state as StateFile;
}

/**
 * Checks that a file of a checkpoint is the one that was saved.
 *
 * @throws FmoeError ERR_FILE when it is missing, cut off or another file
 */
export function checkFile(folder: string, name: string, state: StateFile): string {
  const path = join(folder, name);
  const expected = state.files[name];
  const size = statSync(path, { throwIfNoEntry: false })?.size;
  if (size === undefined || expected === undefined) {
    throw new FmoeError(
      'ERR_FILE',
      `The checkpoint ${folder} is incomplete: ${name} is missing. Use an earlier one.`,
    );
  }
  if (size < expected.bytes) {
    throw new FmoeError(
      'ERR_FILE',
      `${path} is truncated: it has ${size} of ${expected.bytes} bytes. Use an earlier checkpoint.`,
    );
  }
  if (size > expected.bytes || recordOf(path).sha256 !== expected.sha256) {
    throw new FmoeError(
      'ERR_FILE',
      `${path} is not the file that was saved with this checkpoint (its checksum differs). Use an earlier checkpoint.`,
    );
  }
  return path;
}
