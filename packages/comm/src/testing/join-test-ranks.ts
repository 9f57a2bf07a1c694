import { cuda } from '@fmoe/torch';
import { initProcessGroup } from '../groups/init-process-group.js';
import type { ProcessGroup } from '../groups/process-group.js';
import { readRendezvous } from '../rendezvous/index.js';

/** A rank of a test. */
export interface TestRank {
  world: ProcessGroup;
  /** Where its tensors belong. */
  device: 'cpu' | 'cuda';
}

/** Joins the ranks that `launchTestRanks` started, or that `mpirun` did: then with tensors of the CPU. */
export function joinTestRanks(): TestRank {
  const backend = process.env['FMOE_TEST_BACKEND'] as 'mpi' | 'nccl' | undefined;
  const device = process.env['FMOE_TEST_DEVICE'] === 'cuda' ? 'cuda' : 'cpu';
  if (device === 'cuda') {
    const { rank, localRank, localWorldSize } = readRendezvous();
    const gpus = cuda.deviceCount();
    cuda.setDevice(localRank % gpus);
    if (localWorldSize > gpus) {
      // NCCL takes two ranks on one GPU for a mistake, unless they seem to be on different machines.
      process.env['NCCL_HOSTID'] = `rank-${rank}`;
      process.env['NCCL_SOCKET_IFNAME'] ??= 'lo';
    }
  }
  return { world: initProcessGroup(backend === undefined ? {} : { backend }), device };
}
