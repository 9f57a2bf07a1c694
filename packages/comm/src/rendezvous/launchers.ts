import { firstHost, tasksPerNode } from './slurm.js';
import { type Environment, environmentError, integer, type Setting, text } from './variables.js';

/** Who started this process: `env` stands for our launcher, torchrun and everything else that sets `RANK`. */
export type LauncherName = 'env' | 'openmpi' | 'mpich' | 'slurm';

/** What one launcher's variables say. Local values are missing where the launcher does not give them. */
export interface Placement {
  launcher: LauncherName;
  rank: Setting;
  worldSize: Setting;
  localRank?: Setting | undefined;
  localWorldSize?: Setting | undefined;
  nodeRank?: Setting | undefined;
  /** Host of rank 0. */
  host?: string | undefined;
  /** A port that this launcher's other jobs on the machine are not likely to use. */
  port?: number | undefined;
}

/** The launchers whose variables are set, the one to be believed first. */
export function placements(env: Environment): Placement[] {
  const found = [environment(env), openMpi(env), mpich(env), slurm(env)];
  return found.filter((placement) => placement !== undefined);
}

function environment(env: Environment): Placement | undefined {
  return placement(env, 'env', ['RANK'], ['WORLD_SIZE'], {
    localRank: ['LOCAL_RANK'],
    localWorldSize: ['LOCAL_WORLD_SIZE'],
    nodeRank: ['NODE_RANK', 'GROUP_RANK'],
  });
}

function openMpi(env: Environment): Placement | undefined {
  // OMPI_COMM_WORLD_NODE_RANK is not the node's number but the process's place among all jobs on its node.
  return placement(env, 'openmpi', ['OMPI_COMM_WORLD_RANK'], ['OMPI_COMM_WORLD_SIZE'], {
    localRank: ['OMPI_COMM_WORLD_LOCAL_RANK'],
    localWorldSize: ['OMPI_COMM_WORLD_LOCAL_SIZE'],
  });
}

function mpich(env: Environment): Placement | undefined {
  return placement(env, 'mpich', ['PMI_RANK'], ['PMI_SIZE'], {
    localRank: ['MPI_LOCALRANKID'],
    localWorldSize: ['MPI_LOCALNRANKS'],
  });
}

/** A Slurm step. The batch script itself has `SLURM_PROCID=0` but no step, and is one process. */
function slurm(env: Environment): Placement | undefined {
  const worldSize = integer(env, ['SLURM_STEP_NUM_TASKS'], 1);
  if (worldSize === undefined) return undefined;
  const found = placement(env, 'slurm', ['SLURM_PROCID'], ['SLURM_STEP_NUM_TASKS'], {
    localRank: ['SLURM_LOCALID'],
    nodeRank: ['SLURM_NODEID'],
  })!;
  const counts = text(env, 'SLURM_STEP_TASKS_PER_NODE');
  const value = counts === undefined ? undefined : tasksPerNode(counts)[found.nodeRank?.value ?? 0];
  if (value !== undefined) found.localWorldSize = { name: 'SLURM_STEP_TASKS_PER_NODE', value };
  const nodes = text(env, 'SLURM_STEP_NODELIST') ?? text(env, 'SLURM_JOB_NODELIST');
  if (nodes !== undefined) found.host = firstHost(nodes);
  const job = integer(env, ['SLURM_JOB_ID']);
  if (job !== undefined) found.port = 15000 + (job.value % 10000);
  return found;
}

type LocalNames = Partial<Record<'localRank' | 'localWorldSize' | 'nodeRank', string[]>>;

/** Rank and size must be there together, and the local values must not be there without them. */
function placement(
  env: Environment,
  launcher: LauncherName,
  rankNames: string[],
  sizeNames: string[],
  local: LocalNames,
): Placement | undefined {
  const rank = integer(env, rankNames);
  const worldSize = integer(env, sizeNames, 1);
  if (rank === undefined && worldSize === undefined) return undefined;
  if (rank === undefined || worldSize === undefined) {
    const [there, missing] = rank === undefined ? [worldSize!.name, rankNames] : [rank.name, sizeNames];
    throw environmentError(
      `${there} is set but ${missing.join(' or ')} is not. Set both for every process, or neither to run one process.`,
    );
  }
  const result: Placement = { launcher, rank, worldSize };
  for (const key of ['localRank', 'nodeRank'] as const) result[key] = integer(env, local[key] ?? []);
  result.localWorldSize = integer(env, local.localWorldSize ?? [], 1);
  return result;
}
