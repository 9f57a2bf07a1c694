import { cuda } from '@fmoe/torch';
import { listMpiruns, type Mpirun } from '../launch/index.js';

/** By what ranks of a test exchange tensors, and where these lie. */
export interface TestTransport {
  /** For titles. */
  name: string;
  backend: 'mpi' | 'nccl';
  device: 'cpu' | 'cuda';
  mpirun?: string;
  /** Why it cannot be tested here, or undefined when it can. */
  missing: string | undefined;
}

/**
 * Each transport, also those that are missing here: every MPI with tensors of the CPU, one with those of a GPU, and NCCL. Several ranks share a
 * GPU where there are too few.
 */
export function testTransports(): TestTransport[] {
  const found = listMpiruns();
  const mpis = (['openmpi', 'mpich'] as const).flatMap(
    // The first of each, as `fmoe launch` would take it.
    (family) => found.filter((mpirun) => mpirun.family === family).slice(0, 1),
  );
  const noMpi = mpis.length === 0 ? 'there is no mpirun' : undefined;
  const noGpu = cuda.isAvailable() ? undefined : 'no CUDA device is available';
  const ofMpi = (device: 'cpu' | 'cuda', { family, path }: Partial<Mpirun> = {}): TestTransport => ({
    name: `${family ?? 'MPI'} with tensors of the ${device === 'cpu' ? 'CPU' : 'GPU'}`,
    backend: 'mpi',
    device,
    ...(path !== undefined && { mpirun: path }),
    missing: (device === 'cuda' ? noGpu : undefined) ?? noMpi,
  });
  return [
    ...(mpis.length === 0 ? [undefined] : mpis).map((mpi) => ofMpi('cpu', mpi)),
    ofMpi('cuda', mpis[0]),
    { name: 'NCCL', backend: 'nccl', device: 'cuda', missing: noGpu },
  ];
}
