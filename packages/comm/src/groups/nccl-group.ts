import { cuda, FmoeError } from '@fmoe/torch';
import { commOperator } from '../load.js';
import type { Rendezvous } from '../rendezvous/index.js';
import { NativeGroup } from './native-group.js';
import { endWithProcess } from './process-end.js';
import type { ProcessGroup } from './process-group.js';

/**
 * A group over NCCL, on one GPU of each rank: that of the tensors of the first operation, or the current one if these are on the CPU.
 * Operations run on a stream of the group's own, which waits for the current stream and which that waits for; the host does not wait,
 * except for tensors of the CPU, which go through the GPU.
 */
export class NcclGroup extends NativeGroup {
  readonly backend = 'nccl';

  private constructor(id: number) {
    super(id);
  }

  /**
   * Meets the other processes in a store on the machine of rank 0, and gives the group of all. The GPU of the process's local rank
   * becomes the current one, unless another than the first is current. NCCL itself starts at the first operation: the one that libtorch has
   * loaded or that lies beside it, or the file that `FMOE_NCCL_LIBRARY` names.
   *
   * @param timeout seconds that an operation may take
   * @throws FmoeError `ERR_COMM` when the store cannot be reached or there is no NCCL, `ERR_CONFIG` when its address is not known.
   */
  static start(rendezvous: Rendezvous, timeout: number, env: NodeJS.ProcessEnv = process.env): NcclGroup {
    const { rank, worldSize, localRank, masterAddr, masterPort } = rendezvous;
    if (masterAddr === undefined) {
      throw new FmoeError(
        'ERR_CONFIG',
        "NCCL: MASTER_ADDR is not set. Set it to the address of rank 0's machine.",
      );
    }
    if (cuda.isAvailable() && cuda.currentDevice() === 0) cuda.setDevice(localRank % cuda.deviceCount());
    const id = commOperator('start_nccl')(
      env['FMOE_NCCL_LIBRARY'] || 'libnccl.so.2',
      masterAddr,
      masterPort,
      rank,
      worldSize,
      // torchrun's own process serves the store at that address.
      env['TORCHELASTIC_USE_AGENT_STORE'] === 'True',
      timeout,
    ) as number;
    const group = new NcclGroup(id);
    endWithProcess(group);
    return group;
  }

  override split(color: number | null, key?: number, name?: string): ProcessGroup | null {
    const id = this.splitNative(color, key, name);
    return id === null ? null : new NcclGroup(id);
  }
}
