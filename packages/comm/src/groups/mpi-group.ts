import { existsSync } from 'node:fs';
import { FmoeError } from '@fmoe/torch';
import { commOperator, mpiShim } from '../load.js';
import { NativeGroup } from './native-group.js';
import { endWithProcess } from './process-end.js';
import type { ProcessGroup } from './process-group.js';

/** The kinds of MPI that a shim is built for. */
export type MpiFamily = 'openmpi' | 'mpich';

/**
 * The MPI whose launcher started this process, or undefined: `mpirun` of OpenMPI, of MPICH and of what is compatible with it (such
 * as Intel MPI), and `srun` with PMIx (OpenMPI) or PMI.
 */
export function mpiFamily(env: NodeJS.ProcessEnv = process.env): MpiFamily | undefined {
  if (env['OMPI_COMM_WORLD_SIZE'] !== undefined) return 'openmpi';
  if (env['PMI_SIZE'] !== undefined || env['PMI_RANK'] !== undefined) return 'mpich';
  return env['PMIX_RANK'] !== undefined ? 'openmpi' : undefined;
}

/**
 * A group over MPI. Tensors of the CPU go directly, those of a GPU through pinned host memory, so several ranks may share one GPU.
 */
export class MpiGroup extends NativeGroup {
  readonly backend = 'mpi';

  private constructor(id: number) {
    super(id);
  }

  /**
   * Starts MPI and gives the group of all processes. Once in a process; when the process ends well it ends MPI, otherwise it ends
   * all ranks.
   *
   * @param timeout seconds that an operation may take
   * @param host under which other machines find that of rank 0, where its name does not do
   * @throws FmoeError `ERR_CONFIG` when no MPI launcher started this process, `ERR_SETUP` when the shim for its MPI is not built.
   */
  static start(timeout: number, host = '', env: NodeJS.ProcessEnv = process.env): MpiGroup {
    const family = mpiFamily(env);
    if (family === undefined) {
      throw new FmoeError(
        'ERR_CONFIG',
        'MPI: this process was not started by an MPI launcher. Start it with mpirun or `fmoe launch`.',
      );
    }
    const shim = mpiShim(family);
    if (!existsSync(shim)) {
      throw new FmoeError(
        'ERR_SETUP',
        `MPI: this process was started by the mpirun of ${family}, for which @fmoe/comm is not built. ` +
          `Run \`FMOE_MPI=${family} npx fmoe-setup\` with that MPI's mpicc on PATH.`,
      );
    }
    const group = new MpiGroup(commOperator('start_mpi')(shim, host, timeout) as number);
    endWithProcess(group);
    const expected = Number(env['OMPI_COMM_WORLD_SIZE'] ?? env['PMI_SIZE'] ?? group.size);
    if (group.size !== expected) {
      throw new FmoeError(
        'ERR_CONFIG',
        `MPI: the launcher started ${expected} processes but the library sees ${group.size}: they belong to different MPIs. ` +
          `The library is ${MpiGroup.version()}.`,
      );
    }
    return group;
  }

  /** What the MPI library says of itself, on one line; empty before {@link start}. */
  static version(): string {
    return (commOperator('mpi_version')() as string).split('\n')[0]!.trim();
  }

  override split(color: number | null, key?: number, name?: string): ProcessGroup | null {
    const id = this.splitNative(color, key, name);
    return id === null ? null : new MpiGroup(id);
  }
}
