import { createServer } from 'node:net';
import { FmoeError } from '@fmoe/torch';

/** What carries the bytes between ranks, and with it who starts them: this launcher for NCCL, `mpirun` for MPI. */
export type LaunchBackend = 'mpi' | 'nccl';

/** What to start. */
export interface LaunchOptions {
  /** Program and arguments of every rank. */
  command: readonly string[];
  /** Ranks on this machine. */
  processes: number;
  backend: LaunchBackend;
  /** Machines, each with a launcher and as many ranks. Default 1. */
  nodes?: number | undefined;
  /** Number of this machine. Default 0. */
  nodeRank?: number | undefined;
  /** Address of machine 0, as the others reach it. Needed for more than one. */
  masterAddr?: string | undefined;
  /**
   * Port on machine 0: of the store, and before that where launchers meet over MPI. Default: a free one, or 29500 for more than one
   * machine.
   */
  masterPort?: number | undefined;
  /** Seconds for the launchers of all machines to find each other over MPI. Default 300. */
  joinTimeout?: number | undefined;
  /** Show only what this rank writes. Default: all. */
  onlyRank?: number | undefined;
  /** Variables to start from. Default `process.env`. */
  env?: NodeJS.ProcessEnv | undefined;
}

/** Checked options, with nothing left open. */
export interface LaunchPlan {
  command: readonly [string, ...string[]];
  processes: number;
  worldSize: number;
  firstRank: number;
  nodes: number;
  nodeRank: number;
  /** Where machine 0 is. */
  masterAddr: string;
  masterPort: number;
  joinTimeout: number;
  /** Variables of every rank, without those that tell one rank from another. */
  env: NodeJS.ProcessEnv;
}

/** Variables by which an outer launcher told which rank this process is. */
const foreign = /^(RANK|WORLD_SIZE|LOCAL_RANK|LOCAL_WORLD_SIZE|NODE_RANK|GROUP_RANK|TORCHELASTIC_RUN_ID)$/;
const foreignMpi = /^(OMPI_COMM_WORLD_|PMIX_|PMI_|MPI_LOCAL)/;

/**
 * Completes and checks what to start.
 *
 * @throws FmoeError ERR_ARGUMENT for numbers that do not go together
 */
export async function planLaunch(options: LaunchOptions): Promise<LaunchPlan> {
  const { processes, nodes = 1, nodeRank = 0, masterAddr, onlyRank, joinTimeout = 300 } = options;
  const [program, ...args] = options.command;
  if (program === undefined) throw launchError('command', 'there is nothing to start');
  for (const [name, value, least] of [
    ['processes', processes, 1],
    ['nodes', nodes, 1],
    ['nodeRank', nodeRank, 0],
  ] as const) {
    if (Number.isSafeInteger(value) && value >= least) continue;
    throw launchError(name, `${name} is ${value}, expected an integer of at least ${least}`);
  }
  const worldSize = processes * nodes;
  if (nodeRank >= nodes) throw launchError('nodeRank', `there is no node ${nodeRank} among ${nodes}`);
  if (onlyRank !== undefined && !(onlyRank >= 0 && onlyRank < worldSize)) {
    throw launchError('onlyRank', `there is no rank ${onlyRank} among ${worldSize}`);
  }
  if (nodes > 1 && masterAddr === undefined) {
    throw launchError('masterAddr', `the address of machine 0 is needed for ${nodes} machines`);
  }
  if (!(joinTimeout > 0)) throw launchError('joinTimeout', `${joinTimeout} s is no time to join`);
  const masterPort = options.masterPort ?? (nodes > 1 ? 29500 : await freePort());
  const inherited = Object.entries(options.env ?? process.env).filter(
    ([name]) => !foreign.test(name) && !foreignMpi.test(name),
  );
  return {
    command: [program, ...args],
    processes,
    worldSize,
    firstRank: nodeRank * processes,
    nodes,
    nodeRank,
    masterAddr: masterAddr ?? '127.0.0.1',
    masterPort,
    joinTimeout,
    env: {
      // As torchrun: ranks that each take all cores are slower together than with one each.
      ...(processes > 1 && { OMP_NUM_THREADS: '1' }),
      ...Object.fromEntries(inherited),
      MASTER_ADDR: masterAddr ?? '127.0.0.1',
      MASTER_PORT: `${masterPort}`,
    },
  };
}

export function launchError(argument: string, problem: string): FmoeError {
  return new FmoeError('ERR_ARGUMENT', `launch: ${problem}.`, { op: 'launch', argument });
}

/** A port of this machine that nobody listens on. */
export async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as { port: number };
  await new Promise((resolve) => server.close(resolve));
  return port;
}
