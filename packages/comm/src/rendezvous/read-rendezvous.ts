import { type LauncherName, type Placement, placements } from './launchers.js';
import { type Environment, environmentError, integer, type Setting, text } from './variables.js';

/** Where a process stands among those that were started together. */
export interface Rendezvous {
  /** 0 … worldSize-1. */
  rank: number;
  worldSize: number;
  /** Place among the processes of its machine, which picks its GPU. */
  localRank: number;
  localWorldSize: number;
  /** The machine's number, where the launcher gives one or there is only one machine. */
  nodeRank?: number;
  /**
   * Address of rank 0's machine. Missing only under `mpirun` on several machines, which does not tell and does not need it:
   * set `MASTER_ADDR` where a store is wanted.
   */
  masterAddr?: string;
  /** Port of rank 0's store. Default 29500. */
  masterPort: number;
  /** Whose variables were believed; `none` for a process that was started by itself. */
  launcher: LauncherName | 'none';
}

const defaultPort = 29500;
const loopback = /^(localhost|127\.\d+\.\d+\.\d+|::1)$/;

/**
 * Reads from the environment which of how many processes this is.
 *
 * Understood are `RANK`, `WORLD_SIZE`, `LOCAL_RANK`, `LOCAL_WORLD_SIZE`, `MASTER_ADDR`, `MASTER_PORT` (`fmoe launch`,
 * torchrun), and the variables of OpenMPI's and MPICH's `mpirun` and of Slurm's `srun`, believed in this order. `MASTER_ADDR`
 * and `MASTER_PORT` count under each of them. Without any of these it is rank 0 of 1.
 *
 * @throws FmoeError ERR_CONFIG when variables are half set, contradict each other or are out of range; the message names them
 */
export function readRendezvous(env: Environment = process.env): Rendezvous {
  const [found, ...others] = placements(env);
  const masterPort = integer(env, ['MASTER_PORT'], 1) ?? {
    name: 'MASTER_PORT',
    value: found?.port ?? defaultPort,
  };
  if (masterPort.value > 65535)
    throw environmentError(`MASTER_PORT is ${masterPort.value}, the last port is 65535.`);
  const address = text(env, 'MASTER_ADDR');
  if (found === undefined) {
    return {
      rank: 0,
      worldSize: 1,
      localRank: 0,
      localWorldSize: 1,
      nodeRank: 0,
      masterAddr: address ?? '127.0.0.1',
      masterPort: masterPort.value,
      launcher: 'none',
    };
  }
  // Each torchrun may itself be a process of mpirun or srun, one a machine.
  if (text(env, 'TORCHELASTIC_RUN_ID') === undefined) reconcile(found, others);
  completeLocal(found, address);
  checkRanges(found);
  const { rank, worldSize, localRank, localWorldSize, nodeRank, launcher } = found;
  const oneMachine = localWorldSize!.value === worldSize.value;
  const masterAddr = address ?? found.host ?? (oneMachine ? '127.0.0.1' : undefined);
  if (masterAddr === undefined && launcher === 'env') {
    throw environmentError(
      `WORLD_SIZE is ${worldSize.value} and LOCAL_WORLD_SIZE ${localWorldSize!.value}, but MASTER_ADDR is not set. ` +
        "Set it to the address of rank 0's machine.",
    );
  }
  return {
    rank: rank.value,
    worldSize: worldSize.value,
    localRank: localRank!.value,
    localWorldSize: localWorldSize!.value,
    ...((nodeRank || oneMachine) && { nodeRank: nodeRank?.value ?? 0 }),
    ...(masterAddr !== undefined && { masterAddr }),
    masterPort: masterPort.value,
    launcher,
  };
}

/** Other launchers must say the same, and may then say more. */
function reconcile(found: Placement, others: readonly Placement[]): void {
  for (const other of others) {
    const agrees = other.rank.value === found.rank.value && other.worldSize.value === found.worldSize.value;
    if (agrees) {
      found.localRank ??= other.localRank;
      found.localWorldSize ??= other.localWorldSize;
      found.nodeRank ??= other.nodeRank;
      found.host ??= other.host;
      found.port ??= other.port;
    } else if (other.launcher !== 'slurm') {
      // Slurm counts the helpers that mpirun starts through it, one a machine, so it alone may differ.
      throw environmentError(
        `${show(found.rank)} and ${show(found.worldSize)} contradict ${show(other.rank)} and ${show(other.worldSize)}. ` +
          'Unset the ones that do not belong to this run.',
      );
    }
  }
}

/** Local values that no launcher gave: known when all processes are on one machine, else the user must set them. */
function completeLocal(found: Placement, address: string | undefined): void {
  const { rank, worldSize } = found;
  const oneMachine = worldSize.value === 1 || (address !== undefined && loopback.test(address));
  if (oneMachine) {
    found.localRank ??= rank;
    found.localWorldSize ??= worldSize;
    return;
  }
  for (const [key, name] of [
    ['localRank', 'LOCAL_RANK'],
    ['localWorldSize', 'LOCAL_WORLD_SIZE'],
  ] as const) {
    if (found[key] !== undefined) continue;
    throw environmentError(
      `${rank.name} and ${worldSize.name} are set but ${found.launcher === 'env' ? name : `nothing like ${name}`} is not. ` +
        'It is needed unless MASTER_ADDR is 127.0.0.1, which says that all processes are on one machine.',
    );
  }
}

function checkRanges({ rank, worldSize, localRank, localWorldSize }: Placement): void {
  const wrong: [lower: Setting, upper: Setting, mayEqual: boolean][] = [
    [rank, worldSize, false],
    [localRank!, localWorldSize!, false],
    [localWorldSize!, worldSize, true],
    [localRank!, rank, true],
  ];
  for (const [lower, upper, mayEqual] of wrong) {
    if (lower.value < upper.value || (mayEqual && lower.value === upper.value)) continue;
    throw environmentError(
      `${show(lower)} does not go with ${show(upper)}: it must be ${mayEqual ? 'at most that' : 'less'}.`,
    );
  }
}

function show({ name, value }: Setting): string {
  return `${name}=${value}`;
}
