/** Shape letters: N all experts, E local experts, W ranks, R rows here in expert order, L rows received, D features. */
import { FmoeError, type Tensor } from '@fmoe/torch';
import type { ProcessGroup } from '../groups/process-group.js';
import { NativeWork, type Work } from '../groups/work.js';
import { commOperator } from '../load.js';
import type { Placement } from './placement.js';

/**
 * The way of one batch's rows to the ranks of their experts and back.
 *
 * Rows come in the order of a route plan over all N experts: by expert, and inside an expert in the order of the tokens. The
 * receiving rank gets them by local expert, and for each by source rank, which is what grouped products take together with
 * {@link offsets}. Each direction is one all-to-all of uneven parts; it costs a copy on the sending side only where the placement is
 * not in the order of the experts, and one on the receiving side where a rank has several experts.
 *
 * Each direction is the other's gradient, so all members of the group must also run the backward.
 *
 * @example
 * ```ts
 * const plan = routePlan(topIdx, placement.numExperts);
 * const exchange = new TokenExchange(plan.counts, placement, group);
 * const received = exchange.scatter(dispatch(x, plan.rowSlot, plan.slotRow)); // [L, D]
 * const outputs = runExperts(received, exchange.offsets);                     // [L, D]
 * const rows = exchange.gather(outputs, plan.rowSlot.shape[0]);               // [R, D]
 * const y = combine(rows, topScore, plan.slotRow);
 * ```
 */
export class TokenExchange {
  /** `[E+1]` int64 on the device of the counts: local expert e has the received rows `offsets[e]` to `offsets[e+1] - 1`. */
  readonly offsets: Tensor;
  /** `[N]` int64 on the CPU: the rows that leave here for each expert. */
  readonly sent: Tensor;
  /** `[W, E]` int64 on the CPU: the rows that each rank sends to each local expert. */
  readonly received: Tensor;
  /** L. */
  readonly receivedRows: number;
  /** The sum of {@link sent}. */
  readonly sentRows: number;

  /**
   * Tells every rank how many rows it gets: an all-to-all of the counts. With counts on a GPU this is the one place of the exchange
   * where the host waits for it.
   *
   * @param counts `[N]` int64: how many rows there are here for each expert, as in a `RoutePlan`
   * @param placement of N experts on the W members of the group, the same on all of them
   * @throws FmoeError `ERR_ARGUMENT` for a placement that does not fit the group, `ERR_SHAPE` and `ERR_DTYPE` for other counts,
   * `ERR_COMM` when the group fails.
   */
  constructor(
    counts: Tensor,
    readonly placement: Placement,
    readonly group: ProcessGroup,
  ) {
    if (placement.worldSize !== group.size) {
      throw new FmoeError(
        'ERR_ARGUMENT',
        `TokenExchange: the placement is for ${placement.worldSize} ranks, the group has ${group.size}`,
        { op: 'TokenExchange', argument: 'placement' },
      );
    }
    const experts = placement.numExpertsOfRank;
    [this.sent, this.received, this.offsets] = commOperator('exchange_counts')(
      counts,
      placement.order,
      experts,
      group.id,
    ) as [Tensor, Tensor, Tensor];
    // Over NCCL it is the stream that waited: what a failed exchange left there must not be taken for counts.
    const failure = commOperator('group_failure')(group.id) as string;
    if (failure !== '') throw new FmoeError('ERR_COMM', `TokenExchange: ${failure}`, { op: 'TokenExchange' });
    this.sentRows = sum(this.sent);
    this.receivedRows = sum(this.received);
  }

  /**
   * Sends the rows to their experts' ranks.
   *
   * @param rows `[R, …]` by expert; rows past {@link sentRows}, a route plan's padding, stay here
   * @returns `[L, …]` by local expert
   */
  scatter(rows: Tensor): Tensor {
    return commOperator('global_scatter')(rows, ...this.arguments(), this.group.id) as Tensor;
  }

  /** {@link scatter} without waiting. */
  startScatter(rows: Tensor): Work<Tensor> {
    return started(commOperator('start_global_scatter')(rows, ...this.arguments(), this.group.id));
  }

  /**
   * Sends the experts' outputs back to where the rows came from.
   *
   * @param rows `[L, …]` by local expert
   * @param totalRows R: the result is filled up with zeros to that many rows. Default {@link sentRows}
   * @returns `[R, …]` in the order of the rows that {@link scatter} took
   */
  gather(rows: Tensor, totalRows = this.sentRows): Tensor {
    return commOperator('global_gather')(rows, ...this.arguments(), totalRows, this.group.id) as Tensor;
  }

  /** {@link gather} without waiting. */
  startGather(rows: Tensor, totalRows = this.sentRows): Work<Tensor> {
    return started(commOperator('start_global_gather')(rows, ...this.arguments(), totalRows, this.group.id));
  }

  private arguments(): [Tensor, Tensor, Tensor, number[]] {
    return [this.sent, this.received, this.placement.order, this.placement.numExpertsOfRank];
  }
}

function started(begun: unknown): Work<Tensor> {
  const [result, id] = begun as [Tensor, number];
  return new NativeWork(id, result);
}

function sum(counts: Tensor): number {
  return Number((counts.data() as BigInt64Array).reduce((total, count) => total + count, 0n));
}
