/** Shape letters: N all experts, E local experts, W ranks, R rows here in expert order, L rows received, D features. */
import { cuda, Event, FmoeError, type Tensor } from '@fmoe/torch';
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
  private readonly counts: { sent: Tensor; received: Tensor; offsets: Tensor };
  /** Marks in the stream of a GPU that the counts are on the host. */
  private readonly arrival: Event | null;
  private sums: [sent: number, received: number] | undefined;

  /**
   * Begins to tell every rank how many rows it gets: an all-to-all of the counts. With counts on a GPU the host waits for it when
   * the first size is asked for or the first rows are exchanged, the one place of the exchange where it waits; work that is
   * submitted before goes on meanwhile.
   *
   * @param counts `[N]` int64: how many rows there are here for each expert, as in a `RoutePlan`
   * @param placement of N experts on the W members of the group, the same on all of them
   * @throws FmoeError `ERR_ARGUMENT` for a placement that does not fit the group, `ERR_SHAPE` and `ERR_DTYPE` for other counts,
   * `ERR_COMM` when the group fails, which on a GPU may also be told at that wait.
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
    const start = commOperator('start_exchange_counts');
    const [sent, received, offsets] = start(counts, placement.order, experts, group.id) as Tensor[];
    this.counts = { sent: sent!, received: received!, offsets: offsets! };
    const [type, index] = counts.device.split(':');
    this.arrival = type === 'cuda' ? new Event().record(cuda.currentStream(Number(index ?? 0))) : null;
  }

  /** `[E+1]` int64 on the device of the counts: local expert e has the received rows `offsets[e]` to `offsets[e+1] - 1`. */
  get offsets(): Tensor {
    this.arrived();
    return this.counts.offsets;
  }

  /** `[N]` int64 on the CPU: the rows that leave here for each expert. */
  get sent(): Tensor {
    this.arrived();
    return this.counts.sent;
  }

  /** `[W, E]` int64 on the CPU: the rows that each rank sends to each local expert. */
  get received(): Tensor {
    this.arrived();
    return this.counts.received;
  }

  /** L. */
  get receivedRows(): number {
    return this.arrived()[1];
  }

  /** The sum of {@link sent}. */
  get sentRows(): number {
    return this.arrived()[0];
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

  /** Waits for the counts, the first time. */
  private arrived(): [sent: number, received: number] {
    if (this.sums === undefined) {
      this.arrival?.synchronize();
      const { sent, received, offsets } = this.counts;
      const finish = commOperator('finish_exchange_counts');
      this.sums = finish(sent, received, offsets, this.group.id) as [number, number];
    }
    return this.sums;
  }

  private arguments(): [Tensor, Tensor, Tensor, number[]] {
    return [this.sent, this.received, this.placement.order, this.placement.numExpertsOfRank];
  }
}

function started(begun: unknown): Work<Tensor> {
  const [result, id] = begun as [Tensor, number];
  return new NativeWork(id, result);
}
