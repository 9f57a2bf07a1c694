/** Shape letters: T tokens, N all experts, K top-k, W ranks, B bins. */
import { expertCount, limitByCapacity, pruneGateByCapacity, topkGate } from '@fmoe/kernels';
import { cat, FmoeError, full, noGrad, stack, type Tensor, tensor, where } from '@fmoe/torch';
import { withDefaults } from './check-options.js';
import { gatherOfRanks, sumOverBatch } from './global-batch.js';
import { rankOfExpert } from './rank-of-expert.js';
import { type Choice, LinearGate, type RouterOptions } from './router-gate.js';

/** Settings of {@link SwipeGate}. */
export interface SwipeGateOptions extends RouterOptions {
  /**
   * What is kept even: the bin of every expert, 0 … B-1, or null for one that takes no room anywhere. Default: the ranks of the
   * group that have experts, by the gate's `placement`, and null for null experts; so one process alone has a single bin, and
   * nothing to even out.
   */
  binOfExpert?: readonly (number | null)[];
}

/**
 * Top-k that moves tokens in training mode until every bin of experts, such as a rank, has an even load (the SWIPE strategy
 * of BaGuaLu, Ma et al., PPoPP 2022). Choice by choice, tokens take their best expert that is left, first come first served;
 * those that find a bin full go to the first bins with room, and there to the expert that they like best. A bin takes
 * ⌈slots / B⌉ of all ranks' slots; experts outside the bins take what chooses them. The score is the softmax over the logits of the final experts.
 *
 * A token whose new bin has no expert that it does not have already loses that slot. In evaluation mode nothing is moved.
 *
 * Default: `balance` false.
 */
export class SwipeGate extends LinearGate {
  static override readonly optionNames: readonly string[] = [...super.optionNames, 'binOfExpert'];

  readonly numBins: number;
  /** `[N]` int64, B for experts outside the bins. Not part of the state dict. */
  declare readonly binOfExpert: Tensor;

  /** @throws FmoeError `ERR_ARGUMENT` for bins that are not 0 … B-1, each with an expert. */
  constructor(options: SwipeGateOptions) {
    super(withDefaults({ balance: false }, options));
    const { numExpert } = this;
    const owner = this.constructor.name;
    const bins = options.binOfExpert ?? numbered(rankOfExpert(this, options.placement));
    const distinct = new Set(bins.filter((bin) => bin !== null));
    this.numBins = distinct.size;
    if (
      bins.length !== numExpert ||
      [...distinct].some((bin) => !(Number.isInteger(bin) && bin >= 0 && bin < this.numBins))
    ) {
      throw new FmoeError(
        'ERR_ARGUMENT',
        `${owner}: binOfExpert must name a bin 0 … B-1 or null for each of ${numExpert} experts, every bin at least once, got [${bins.map(String).join(', ')}].`,
        { op: owner, argument: 'binOfExpert' },
      );
    }
    const table = bins.map((bin) => bin ?? this.numBins);
    this.registerBuffer('binOfExpert', tensor(table, { dtype: 'int64' }), { persistent: false });
  }

  protected override choose(logits: Tensor): Choice {
    if (!this.training || this.numBins <= 1) return topkGate(logits, this.topK);
    const topIdx = noGrad(() => this.spread(logits.detach()));
    const chosen = logits.gather(1, topIdx.clampMin(0));
    const topScore = chosen.maskedFill(topIdx.lt(0), Number.NEGATIVE_INFINITY).softmax(-1);
    return this.balance === null
      ? { topIdx, topScore }
      : { topIdx, topScore, wanted: topkGate(logits, this.topK) };
  }

  /** The experts `[T, K]` after moving. */
  private spread(logits: Tensor): Tensor {
    const { numBins, topK, binOfExpert, group } = this;
    const { device } = logits;
    const none = Number.NEGATIVE_INFINITY;
    const slots = sumOverBatch(full([], logits.shape[0]! * topK, { dtype: 'int64', device }), group);
    const share = slots
      .add(numBins - 1)
      .floorDivide(numBins)
      .expand([numBins]);
    // What is outside the bins stands behind them with room for all, so nobody is refused there; and nobody is sent there, as the
    // bins alone have room for all.
    let room = cat([share, slots.view([1])]);
    let left = logits;
    const columns: Tensor[] = [];
    for (let choice = 0; choice < topK; choice++) {
      const favourite = topkGate(left, 1).topIdx.view([-1]);
      const { bin, roomLeft } = this.assign(binOfExpert.indexSelect(0, favourite), room);
      room = roomLeft;
      const there = left.maskedFill(binOfExpert.ne(bin.unsqueeze(1)), none);
      const best = topkGate(there, 1).topIdx;
      // A slot that is lost takes no expert away from the token's other choices.
      const isLost = there.gather(1, best).eq(none);
      columns.push(where(isLost, -1, best).view([-1]));
      left = left.scatter(1, best, where(isLost, left.gather(1, best), none));
    }
    return stack(columns, 1);
  }

  /**
   * Bins that have room, for tokens that wish for given ones; bin B is what is outside the bins.
   *
   * @param wish `[T]`
   * @param room `[B+1]` slots that each bin still takes from all ranks, enough for all their wishes
   * @returns the bin of each token `[T]`, and the room that is left `[B+1]`
   */
  private assign(wish: Tensor, room: Tensor): { bin: Tensor; roomLeft: Tensor } {
    const { numBins, group } = this;
    const wishes = gatherOfRanks(expertCount(wish, numBins + 1).unsqueeze(0), group);
    const rank = group?.rank ?? 0;
    const granted = limitByCapacity(wishes.view([-1]), room).view(wishes.shape);
    const kept = pruneGateByCapacity(wish, granted.select(0, rank).contiguous());
    const isRefused = kept.lt(0);
    const refused = wishes.sub(granted).sum([1]);
    const before = refused.cumsum(0).sub(refused).select(0, rank);
    const free = room.sub(granted.sum([0]));
    const ends = free.cumsum(0);
    // The refused tokens of all ranks stand in one line and fill the free places of the bins in order.
    const target = isRefused.to('int64').cumsum(0).sub(1).add(before).bucketize(ends, { right: true });
    const moved = refused.sum().sub(ends.sub(free)).clampMin(0).minimum(free);
    return { bin: where(isRefused, target, kept), roomLeft: free.sub(moved) };
  }
}

/** Ranks as bins: numbers from 0 in the order of those that have experts. */
function numbered(ranks: readonly (number | null)[]): (number | null)[] {
  const used = [...new Set(ranks.filter((rank) => rank !== null))].sort((a, b) => a - b);
  return ranks.map((rank) => (rank === null ? null : used.indexOf(rank)));
}
