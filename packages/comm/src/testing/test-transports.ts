import { cuda } from '@fmoe/torch';
import { listMpiruns } from '../launch/index.js';

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
  const mpis = [...new Map(listMpiruns().map(({ family, path }) => [family, path]))];
  const noMpi = mpis.length === 0 ? 'there is no mpirun' : undefined;
  const noGpu = cuda.isAvailable() ? undefined : 'no CUDA device is available';
  const ofMpi = (
    device: 'cpu' | 'cuda',
    [family, mpirun]: [family?: string, path?: string],
  ): TestTransport => ({
    name: `${family ?? 'MPI'} with tensors of the ${device === 'cpu' ? 'CPU' : 'GPU'}`,
    backend: 'mpi',
    device,
    ...(mpirun !== undefined && { mpirun }),
    missing: (device === 'cuda' ? noGpu : undefined) ?? noMpi,
  });
  return [
    ...(mpis.length === 0 ? [[] as [string?, string?]] : mpis).map((mpi) => ofMpi('cpu', mpi)),
    ofMpi('cuda', mpis[0] ?? []),
    { name: 'NCCL', backend: 'nccl', device: 'cuda', missing: noGpu },
  ];
}
