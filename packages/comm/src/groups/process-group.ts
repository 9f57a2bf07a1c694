/** Shape letters: W members of the group. */
import type { Tensor } from '@fmoe/torch';
import type { Work } from './work.js';

/** How a reduction combines the values of the ranks, as in PyTorch. On bool tensors sum and max mean "or", product and min "and". */
export type ReduceOp = 'sum' | 'mean' | 'product' | 'min' | 'max';

/** What carries the bytes of a group. */
export type Backend = 'local' | 'mpi' | 'nccl';

/**
 * Processes that work together: rank r of W. Every member calls the same operations in the same order.
 *
 * Operations take tensors of every dtype, on the CPU and on a GPU, whatever the transport: MPI carries the tensors of a GPU through
 * pinned host memory, NCCL those of the CPU through the GPU. Results are fresh tensors unless the name ends in an underscore. What
 * is called `start…` does not wait: the tensors that it was given must not be changed, nor its result be read, until
 * its {@link Work} was waited for.
 *
 * `reduceScatter` (`sum` and `mean`), `allGather` and `allToAll` record gradients; their backward is a collective operation as
 * well, so all members must run it. Reductions of float16 and bfloat16 add up in float32 over MPI and round once; NCCL
 * rounds after every rank.
 *
 * Every operation throws `ERR_COMM` when it fails or does not end within {@link timeout}; the message names the group, the operation,
 * its number and the ranks that are missing. A group that failed once throws ever after: end the process. Over NCCL it is
 * the stream of the GPU that waits, so that the failure of an operation is thrown by the next one, or at the end of the process;
 * what the failed one has left in the tensors is not to be used.
 *
 * Ranks that do not agree are noticed over MPI: on the sizes of exchanges and messages by the receiver; on operation, dtype, sizes
 * and row counts of all other operations by ranks 1, 2, 4 … places after one that differs, which do not begin it, while the others
 * wait until the process is ended or their timeout. NCCL notices nothing of the kind, and an exchange that meets another operation
 * ends at its timeout. With `FMOE_COMM_DEBUG=1`, set for all ranks, they compare operation, dtype, shape and row counts first, and each
 * says which rank differs.
 */
export interface ProcessGroup {
  /** For messages. */
  readonly name: string;
  readonly backend: Backend;
  /** This process's place in the group, 0 … W-1. */
  readonly rank: number;
  /** The number of members, W. */
  readonly size: number;
  /** The members' ranks in the world. */
  readonly members: readonly number[];
  /** Seconds that an operation may take. */
  timeout: number;
  /** @internal The number by which native operators know the group. */
  readonly id: number;

  /** Combines the members' tensors of equal shape in place. */
  allReduce_(tensor: Tensor, op?: ReduceOp): Tensor;
  startAllReduce_(tensor: Tensor, op?: ReduceOp): Work<Tensor>;

  /**
   * Combines tensors `[sum(rowsOfRank), …]` and gives each member its own rows.
   *
   * @param rowsOfRank `[W]` the rows that each member gets, the same on all
   */
  reduceScatter(tensor: Tensor, rowsOfRank: readonly number[], op?: ReduceOp): Tensor;
  startReduceScatter(tensor: Tensor, rowsOfRank: readonly number[], op?: ReduceOp): Work<Tensor>;

  /**
   * The members' rows one after the other; row counts may differ. Its gradient is the sum of the members' gradients
   * of these rows; `allGatherRows` has others.
   *
   * @param rowsOfRank `[W]` the rows that each member brings, the same on all
   */
  allGather(tensor: Tensor, rowsOfRank: readonly number[]): Tensor;
  startAllGather(tensor: Tensor, rowsOfRank: readonly number[]): Work<Tensor>;

  /** Overwrites the tensor with that of the member `root`. */
  broadcast_(tensor: Tensor, root: number): Tensor;
  startBroadcast_(tensor: Tensor, root: number): Work<Tensor>;

  /**
   * Sends `sendRows[r]` rows to each member r and gives back the rows that each sent here, in rank order.
   *
   * @param tensor `[sum(sendRows), …]`
   * @param receiveRows `[W]` what each member sends here, which the caller must know
   * @param out `[sum(receiveRows), …]` takes the rows and is given back, instead of a fresh tensor; no gradients then
   */
  allToAll(tensor: Tensor, sendRows: readonly number[], receiveRows: readonly number[], out?: Tensor): Tensor;
  startAllToAll(
    tensor: Tensor,
    sendRows: readonly number[],
    receiveRows: readonly number[],
    out?: Tensor,
  ): Work<Tensor>;

  /**
   * Sends a tensor to one member, which must receive it. Tags (0 … 16383) keep messages apart. NCCL ignores them: there messages arrive in
   * the order in which they were sent, and either side may wait for the other, also when it only begins; so on a ring some
   * must receive first.
   */
  send(tensor: Tensor, to: number, tag?: number): void;
  startSend(tensor: Tensor, to: number, tag?: number): Work<void>;

  /** Overwrites the tensor with the one that a member sends, of equal shape and dtype. */
  receive_(tensor: Tensor, from: number, tag?: number): Tensor;
  startReceive_(tensor: Tensor, from: number, tag?: number): Work<Tensor>;

  /** Returns when every member has called it. */
  barrier(): void;
  startBarrier(): Work<void>;

  /**
   * Makes one new group for each color, of the members that name it. Every member of this group must call it.
   *
   * @param color an integer of at least 0, or null to join none
   * @param key orders the members of a new group; those with equal ones stay in the order of this group. Default 0
   * @param name the new group's name in messages, the same on all of its members. Default: made from the name of this group
   * @returns this process's new group, or null without a color
   */
  split(color: number | null, key?: number, name?: string): ProcessGroup | null;

  /** Gives the group up: what is under way ends as well as it can, and every later operation throws. Other groups go on. */
  abort(reason: string): void;

  /** Frees the group. Graphs that still need it keep it alive. */
  destroy(): void;
}
