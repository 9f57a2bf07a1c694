/**
 * The folders in which FastMoE's plug-in for Megatron-LM saves a model. Rank 0 of data parallelism writes Megatron's own file with
 * everything and its experts; each other rank writes a file with its experts alone:
 *
 *   <folder>/latest_checkpointed_iteration.txt
 *   <folder>/iter_0000100/mp_rank_00/model_optim_rng.pt
 *   <folder>/iter_0000100/mp_rank_00_dp_rank_0001/model_optim_rng.pt
 *
 * With pipeline parallelism the names are mp_rank_00_000 and mp_rank_00_000_dp_rank_0001. Each rank numbers its experts from 0.
 *
 * Shape letters: N all experts.
 */
import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { cat, FmoeError, type nn, type Tensor } from '@fmoe/torch';

const tracker = 'latest_checkpointed_iteration.txt';
const partName = /^mp_rank_\d{2,}(_\d{3})?$/;
/** The list, the number in it, and the rest. */
const inList = /^((?:.*\.)?experts)\.(\d+)\.(.+)$/;
const router = /^((?:.*\.)?)gate\.gate\.weight$/;

/** Whether a folder is, or holds, an iteration that Megatron-LM saved. */
export function isMegatronFolder(path: string): boolean {
  if (!statSync(path, { throwIfNoEntry: false })?.isDirectory()) return false;
  return existsSync(join(path, tracker)) || partsOf(path).length > 0;
}

/**
 * The files of one model-parallel part of a checkpoint, those of rank 0 of data parallelism first.
 *
 * @param path the folder of the checkpoint, for its last iteration, or that of an iteration
 * @param part such as `mp_rank_00`; may be left out where there is one only
 * @throws FmoeError `ERR_FILE` when the file of a rank is missing; `ERR_ARGUMENT` for a part that is not there, or none where
 * there are several
 */
export function filesOfPart(path: string, part: string | undefined): string[] {
  const folder = iterationOf(path);
  const parts = partsOf(folder);
  if (part === undefined ? parts.length !== 1 : !parts.includes(part)) {
    throw new FmoeError(
      'ERR_ARGUMENT',
      `loadFastMoECheckpoint: ${folder} has ${parts.length === 0 ? 'no parts' : `the parts ${parts.join(', ')}`}; ` +
        (part === undefined ? 'say which: { part }.' : `there is no ${part}.`),
      { op: 'loadFastMoECheckpoint', argument: 'part' },
    );
  }
  const first = part ?? (parts[0] as string);
  const others = readdirSync(folder).filter((name) => name.startsWith(`${first}_dp_rank_`));
  return Array.from({ length: others.length + 1 }, (_, rank) => {
    const name = rank === 0 ? first : `${first}_dp_rank_${`${rank}`.padStart(4, '0')}`;
    const file = join(folder, name, 'model_optim_rng.pt');
    if (!existsSync(file)) throw damaged(path, `the file of rank ${rank} is missing: ${file}`);
    return file;
  });
}

function iterationOf(path: string): string {
  const file = join(path, tracker);
  if (!existsSync(file)) return path;
  const iteration = readFileSync(file, 'utf8').trim();
  const name = iteration === 'release' ? iteration : `iter_${iteration.padStart(7, '0')}`;
  if (!/^(release|iter_\d{7,})$/.test(name) || !existsSync(join(path, name))) {
    throw damaged(path, `${tracker} says '${iteration.slice(0, 20)}', but there is no such iteration`);
  }
  return join(path, name);
}

function partsOf(folder: string): string[] {
  return readdirSync(folder)
    .filter((name) => partName.test(name))
    .sort();
}

/**
 * One state dict with the experts of all ranks, numbered in the order of the ranks.
 *
 * @param states of the ranks; that of rank 0 has everything else as well
 * @throws FmoeError `ERR_FILE` when the ranks do not have the same experts by their own numbers, or a router has another number
 * of experts than there are
 */
export function joinRanks(path: string, states: readonly nn.StateDict[]): nn.StateDict {
  const [first = {}, ...others] = states;
  const joined = { ...first };
  const keys = Object.keys(others[0] ?? {});
  const lists = new Set(keys.map((key) => inList.exec(key)?.[1]));
  for (const [index, state] of others.entries()) {
    const own = index === 0 ? Object.keys(first).filter((key) => lists.has(inList.exec(key)?.[1] ?? '')) : [];
    const odd = [...own, ...keys, ...Object.keys(state)].find((key) => !(key in first && key in state));
    if (odd !== undefined) {
      throw damaged(path, `of rank 0 and rank ${index + 1} only one has ${odd}`);
    }
  }
  for (const key of keys) {
    const [, list, number, name] = inList.exec(key) ?? [];
    if (list === undefined) {
      joined[key] = cat(
        states.map((state) => state[key] as Tensor),
        0,
      );
      continue;
    }
    const perRank = expertsOf(first, list);
    for (const [rank, state] of states.entries()) {
      joined[`${list}.${rank * perRank + Number(number)}.${name}`] = state[key] as Tensor;
    }
  }
  for (const [key, { shape }] of Object.entries(joined)) {
    const prefix = router.exec(key)?.[1];
    const count = prefix === undefined ? 0 : expertsOf(joined, `${prefix}experts`);
    if (count > 0 && shape[0] !== count) {
      throw damaged(
        path,
        `${key} is for ${shape[0]} experts, but ${states.length} ranks have ${count}: files are missing`,
      );
    }
  }
  return joined;
}

/** How many experts there are under a prefix, in either form; 0 where that cannot be told. */
function expertsOf(state: nn.StateDict, prefix: string): number {
  const numbers = Object.keys(state)
    .map((key) => inList.exec(key))
    .filter((match) => match?.[1] === prefix);
  const fused = state[`${prefix}.htoh4.weight`];
  return fused?.shape[0] ?? new Set(numbers.map((match) => match?.[2])).size;
}

function damaged(path: string, problem: string): FmoeError {
  return new FmoeError('ERR_FILE', `loadFastMoECheckpoint: ${path}: ${problem}.`, {
    op: 'loadFastMoECheckpoint',
    argument: 'path',
  });
}
