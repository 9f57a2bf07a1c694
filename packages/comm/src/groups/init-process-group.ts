import { FmoeError } from '@fmoe/torch';
import { type Rendezvous, readRendezvous } from '../rendezvous/index.js';
import { LocalGroup } from './local-group.js';
import { MpiGroup, mpiFamily } from './mpi-group.js';
import { NcclGroup } from './nccl-group.js';
import type { Backend, ProcessGroup } from './process-group.js';

/** Settings of {@link initProcessGroup}. */
export interface InitOptions {
  /** Default: MPI under an MPI launcher, NCCL under any other, local for a process that was started by itself. */
  backend?: Backend;
  /** Seconds that an operation may take before it fails. Default `FMOE_COMM_TIMEOUT`, else 600. */
  timeout?: number;
  /** Default: read from the environment. */
  rendezvous?: Rendezvous;
}

const defaultTimeout = 600;

let started: Backend | undefined;

/**
 * Joins the processes that were started together, and gives the group of all of them: what `fmoe launch`, `mpirun`, `srun` and
 * torchrun start finds each other by the variables that these set (`readRendezvous`).
 *
 * Groups of some of them come from `split`. Every process must call this once.
 *
 * @throws FmoeError `ERR_CONFIG` when the settings contradict the environment or it was called before, `ERR_SETUP` when something
 * is not built, `ERR_COMM` when the processes cannot reach each other.
 *
 * @example
 * ```ts
 * const world = initProcessGroup();
 * const sum = world.allReduce_(torch.tensor([world.rank]));
 * ```
 */
export function initProcessGroup(options: InitOptions = {}): ProcessGroup {
  const rendezvous = options.rendezvous ?? readRendezvous();
  const backend = options.backend ?? defaultBackend(rendezvous);
  const timeout = options.timeout ?? timeoutFromEnvironment();
  if (!(timeout > 0)) {
    throw new FmoeError('ERR_ARGUMENT', `initProcessGroup: timeout must be positive, got ${timeout}`, {
      op: 'initProcessGroup',
      argument: 'timeout',
    });
  }
  if (backend === 'local') return localWorld(rendezvous, timeout);
  if (started !== undefined) {
    throw new FmoeError('ERR_CONFIG', `initProcessGroup: this process has started ${started} already`);
  }
  started = backend;
  return backend === 'mpi'
    ? MpiGroup.start(timeout, rendezvous.masterAddr)
    : NcclGroup.start(rendezvous, timeout);
}

function defaultBackend(rendezvous: Rendezvous): Backend {
  if (mpiFamily() !== undefined) return 'mpi';
  return rendezvous.worldSize === 1 ? 'local' : 'nccl';
}

function timeoutFromEnvironment(): number {
  const text = process.env['FMOE_COMM_TIMEOUT'];
  if (text === undefined || text === '') return defaultTimeout;
  const seconds = Number(text);
  if (seconds > 0) return seconds;
  throw new FmoeError('ERR_CONFIG', `FMOE_COMM_TIMEOUT is '${text}', expected a positive number of seconds`);
}

function localWorld({ worldSize }: Rendezvous, timeout: number): ProcessGroup {
  if (worldSize !== 1) {
    throw new FmoeError(
      'ERR_CONFIG',
      `initProcessGroup: backend 'local' is for one process, but ${worldSize} were started`,
    );
  }
  const group = new LocalGroup('world');
  group.timeout = timeout;
  return group;
}
