import { FmoeError, type Tensor } from '@fmoe/torch';
import { commOperator } from '../load.js';
import { checkRows } from './check.js';
import type { Backend, ProcessGroup, ReduceOp } from './process-group.js';
import { NativeWork, type Work } from './work.js';

/** A group whose operations are native code, over any transport. See {@link ProcessGroup}. */
export abstract class NativeGroup implements ProcessGroup {
  abstract readonly backend: Backend;
  readonly id: number;
  readonly name: string;
  readonly rank: number;
  readonly members: readonly number[];

  /** @param id the number of a native group */
  protected constructor(id: number) {
    this.id = id;
    this.name = commOperator('group_name')(id) as string;
    this.rank = commOperator('group_rank')(id) as number;
    this.members = commOperator('group_members')(id) as number[];
  }

  get size(): number {
    return this.members.length;
  }

  get timeout(): number {
    return commOperator('group_timeout')(this.id) as number;
  }

  set timeout(seconds: number) {
    commOperator('set_group_timeout')(this.id, seconds);
  }

  allReduce_(tensor: Tensor, op: ReduceOp = 'sum'): Tensor {
    return commOperator('all_reduce_')(tensor, op, this.id) as Tensor;
  }

  startAllReduce_(tensor: Tensor, op: ReduceOp = 'sum'): Work<Tensor> {
    return new NativeWork(commOperator('start_all_reduce_')(tensor, op, this.id) as number, tensor);
  }

  reduceScatter(tensor: Tensor, rowsOfRank: readonly number[], op: ReduceOp = 'sum'): Tensor {
    checkRows('reduceScatter', 'rowsOfRank', rowsOfRank, this.size, tensor);
    return commOperator('reduce_scatter')(tensor, rowsOfRank, op, this.id) as Tensor;
  }

  startReduceScatter(tensor: Tensor, rowsOfRank: readonly number[], op: ReduceOp = 'sum'): Work<Tensor> {
    checkRows('startReduceScatter', 'rowsOfRank', rowsOfRank, this.size, tensor);
    return started(commOperator('start_reduce_scatter')(tensor, rowsOfRank, op, this.id));
  }

  allGather(tensor: Tensor, rowsOfRank: readonly number[]): Tensor {
    checkRows('allGather', 'rowsOfRank', rowsOfRank, this.size, tensor, rowsOfRank[this.rank]);
    return commOperator('all_gather')(tensor, rowsOfRank, 'sum', this.id) as Tensor;
  }

  startAllGather(tensor: Tensor, rowsOfRank: readonly number[]): Work<Tensor> {
    checkRows('startAllGather', 'rowsOfRank', rowsOfRank, this.size, tensor, rowsOfRank[this.rank]);
    return started(commOperator('start_all_gather')(tensor, rowsOfRank, 'sum', this.id));
  }

  broadcast_(tensor: Tensor, root: number): Tensor {
    return commOperator('broadcast_')(tensor, root, this.id) as Tensor;
  }

  startBroadcast_(tensor: Tensor, root: number): Work<Tensor> {
    return new NativeWork(commOperator('start_broadcast_')(tensor, root, this.id) as number, tensor);
  }

  allToAll(
    tensor: Tensor,
    sendRows: readonly number[],
    receiveRows: readonly number[],
    out?: Tensor,
  ): Tensor {
    checkRows('allToAll', 'sendRows', sendRows, this.size, tensor);
    checkRows('allToAll', 'receiveRows', receiveRows, this.size);
    return out === undefined
      ? (commOperator('all_to_all')(tensor, sendRows, receiveRows, this.id) as Tensor)
      : (commOperator('all_to_all.out')(tensor, sendRows, receiveRows, this.id, out) as Tensor);
  }

  startAllToAll(
    tensor: Tensor,
    sendRows: readonly number[],
    receiveRows: readonly number[],
    out?: Tensor,
  ): Work<Tensor> {
    checkRows('startAllToAll', 'sendRows', sendRows, this.size, tensor);
    checkRows('startAllToAll', 'receiveRows', receiveRows, this.size);
    if (out === undefined) {
      return started(commOperator('start_all_to_all')(tensor, sendRows, receiveRows, this.id));
    }
    const start = commOperator('start_all_to_all.out');
    return new NativeWork(start(tensor, sendRows, receiveRows, this.id, out) as number, out);
  }

  send(tensor: Tensor, to: number, tag = 0): void {
    commOperator('send')(tensor, to, tag, this.id);
  }

  startSend(tensor: Tensor, to: number, tag = 0): Work<void> {
    return new NativeWork(commOperator('start_send')(tensor, to, tag, this.id) as number, undefined);
  }

  receive_(tensor: Tensor, from: number, tag = 0): Tensor {
    return commOperator('receive_')(tensor, from, tag, this.id) as Tensor;
  }

  startReceive_(tensor: Tensor, from: number, tag = 0): Work<Tensor> {
    return new NativeWork(commOperator('start_receive_')(tensor, from, tag, this.id) as number, tensor);
  }

  barrier(): void {
    commOperator('barrier')(this.id);
  }

  startBarrier(): Work<void> {
    return new NativeWork(commOperator('start_barrier')(this.id) as number, undefined);
  }

  abstract split(color: number | null, key?: number, name?: string): ProcessGroup | null;

  /** The number of the new native group, or null where this process is in none. */
  protected splitNative(color: number | null, key = 0, name = ''): number | null {
    if (color !== null && (!Number.isSafeInteger(color) || color < 0)) {
      throw new FmoeError(
        'ERR_ARGUMENT',
        `split: color must be an integer of at least 0 or null, got ${String(color)}`,
        { op: 'split', argument: 'color' },
      );
    }
    const id = commOperator('split_group')(this.id, color ?? -1, key, name) as number;
    return id === 0 ? null : id;
  }

  abort(reason: string): void {
    commOperator('fail_group')(this.id, reason);
  }

  destroy(): void {
    commOperator('remove_group')(this.id);
  }
}

/** What the native forms that give a fresh tensor return. */
function started(begun: unknown): Work<Tensor> {
  const [result, id] = begun as [Tensor, number];
  return new NativeWork(id, result);
}
