import { readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import type { ProcessGroup } from '@fmoe/comm';
import { FmoeError, getRngState, saveSafetensors, type Tensor, tidy } from '@fmoe/torch';
import { writeWholeFile } from '../atomic-write.js';
import {
  type CheckpointState,
  type FileRecord,
  fileOfRank,
  files,
  format,
  parts,
  recordOf,
  type StateFile,
  shardedVersion,
} from './checkpoint-file.js';
import { type ExpertLayout, stackedExperts, stateName, toGlobal } from './global-names.js';
import { generatorDevices, type RunTensors } from './save-checkpoint.js';

/** What one rank tells the first about its files. */
interface RankRecord {
  files: Record<string, FileRecord>;
  /** Parameters of this rank under global names, in the order of the optimizer. */
  parameters: string[];
}

const recordFile = (rank: number): string => `rank-${rank}.json`;

/**
 * Writes a checkpoint together with the other ranks: each its own experts, memories and generators, the first rank also what all
 * have. Every rank calls it with the same folder, which they all must see; when it returns, all files are on the disk.
 */
export function saveSharded(
  folder: string,
  state: Omit<CheckpointState, 'optimizer' | 'memories'>,
  { model, optimizer, memories }: Omit<RunTensors, 'memories'> & { memories: readonly Tensor[] },
  layout: ExpertLayout,
  group: ProcessGroup,
): void {
  const { rank, size } = group;
  const isFirst = rank === 0;
  const { state: tensorsOf, param_groups } = optimizer.stateDict();
  const [options, more] = param_groups;
  const names = options?.['param_names'] as string[] | undefined;
  if (options === undefined || more !== undefined || names === undefined) {
    throw new FmoeError(
      'ERR_NOT_IMPLEMENTED',
      'Several ranks can save an optimizer with one group of named parameters only.',
    );
  }
  const fileOf = (part: (typeof parts)[number]): string => join(folder, fileOfRank(part, rank, size));
  tidy(() => {
    saveSafetensors(fileOf('model'), toGlobal(Object.entries(model.stateDict()), layout, isFirst), {
      format: 'pt',
    });
    const optimizerTensors: Record<string, Tensor> = {};
    const states = new Set(Object.values(tensorsOf).flatMap((own) => Object.keys(own)));
    for (const name of states) {
      const tensors = names.flatMap((parameter, index) => {
        const tensor = tensorsOf[index]?.[name] as Tensor | undefined;
        return tensor === undefined ? [] : [[parameter, tensor] as const];
      });
      Object.assign(
        optimizerTensors,
        toGlobal(tensors, layout, isFirst, (parameter) => stateName(name, parameter)),
      );
    }
    saveSafetensors(fileOf('optimizer'), optimizerTensors);
    const run: Record<string, Tensor> = {};
    for (const device of generatorDevices()) run[`rng.${device}`] = getRngState(device);
    for (const [layer, tensor] of memories.entries()) run[`mems.${rank}.${layer}`] = tensor;
    saveSafetensors(fileOf('run'), run);
  });
  const record: RankRecord = {
    files: Object.fromEntries(
      parts.map((part) => {
        const name = fileOfRank(part, rank, size);
        return [name, recordOf(join(folder, name))];
      }),
    ),
    parameters: names.map((name) => layout.get(name)?.name ?? name),
  };
  writeWholeFile(join(folder, recordFile(rank)), JSON.stringify(record));
  group.barrier();
  if (!isFirst) return;
  const records = Array.from({ length: size }, (_, other) => {
    const path = join(folder, recordFile(other));
    const read = JSON.parse(readFileSync(path, 'utf8')) as RankRecord;
    rmSync(path);
    return read;
  });
  const parameters = mergeNames(records.map((each) => each.parameters));
  const content: StateFile = {
    format,
    version: shardedVersion,
    ranks: size,
    ...state,
    experts: stackedExperts(layout),
    optimizer: [{ ...options, params: parameters.map((_, index) => index), param_names: parameters }],
    memories: new Array<number>(size).fill(memories.length),
    files: Object.assign({}, ...records.map((each) => each.files)) as StateFile['files'],
  };
  writeWholeFile(join(folder, files.state), `${JSON.stringify(content, null, 2)}\n`);
}

/**
 * The order that the parameters have on one process. Ranks differ in the modules of expert lists alone, whose names differ in a
 * number: those of all ranks come where the first such name stands, by number.
 */
export function mergeNames(lists: readonly (readonly string[])[]): string[] {
  const first = lists[0]!;
  const everywhere = new Set(first.filter((name) => lists.every((list) => list.includes(name))));
  const prefixOf = (name: string): string => name.replace(/\.experts\.\d+\..*$/, '.experts.');
  const own = new Map<string, Map<number, string[]>>();
  for (const name of lists.flat()) {
    if (everywhere.has(name)) continue;
    const byExpert = own.get(prefixOf(name)) ?? new Map<number, string[]>();
    own.set(prefixOf(name), byExpert);
    const expert = Number(/\.experts\.(\d+)\./.exec(name)?.[1]);
    byExpert.set(expert, [...(byExpert.get(expert) ?? []), name]);
  }
  const take = (prefix: string): string[] => {
    const byExpert = own.get(prefix) ?? new Map<number, string[]>();
    own.delete(prefix);
    return [...byExpert].sort(([a], [b]) => a - b).flatMap(([, names]) => names);
  };
  const merged = first.flatMap((name) => (everywhere.has(name) ? [name] : take(prefixOf(name))));
  // Lists of which the first rank has no expert.
  return [...merged, ...[...own.keys()].flatMap(take)];
}
