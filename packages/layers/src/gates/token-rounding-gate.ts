/** Shape letters: T tokens, N all experts, K top-k, R rows with padding. */
import { expertCount } from '@fmoe/kernels';
import { arange, cat, FmoeError, full, type Tensor, where, zeros, zerosLike } from '@fmoe/torch';
import { checkSize } from '../check.js';
import { checkOneOf } from './check-options.js';
import type { ExpertRoute, Route } from './route.js';
import { TopKGate, type TopKGateOptions } from './topk-gate.js';

/** Settings of {@link TokenRoundingGate}. */
export interface TokenRoundingGateOptions extends Omit<TopKGateOptions, 'capacity' | 'globalBatch'> {
  /** Rows of a tile of the grouped matrix product. Default 128. */
  tileSize?: number;
  /** Where an expert's number of tokens goes. Default `'nearest'`, a half tile upwards. */
  rounding?: 'nearest' | 'up' | 'down';
}

/**
 * Token rounding (SonicMoE, 2025, arXiv 2512.14080): in training mode each expert's number of tokens is rounded to whole
 * tiles, so that the grouped matrix product computes no padding. An expert that has too many gives up those of its lowest
 * scores (before normalising), one that has too few takes the best of the tokens that did not choose it. In evaluation mode
 * it is {@link TopKGate}.
 *
 * Scores are those of {@link TopKGate}, normalised by the K that a token chose itself. The tokens of a rank are rounded by
 * themselves. There is no capacity, and an expert never has more than all T tokens.
 */
export class TokenRoundingGate extends TopKGate {
  static override readonly optionNames: readonly string[] = [...super.optionNames, 'tileSize', 'rounding'];

  readonly tileSize: number;
  readonly rounding: 'nearest' | 'up' | 'down';

  /** @throws FmoeError `ERR_ARGUMENT` for settings out of range, a capacity or `globalBatch`. */
  constructor(options: TokenRoundingGateOptions) {
    super(options);
    const owner = this.constructor.name;
    if (this.globalBatch || this.capacity.some((factor) => factor !== null)) {
      const argument = this.globalBatch ? 'globalBatch' : 'capacity';
      throw new FmoeError('ERR_ARGUMENT', `${owner}: ${argument} does not go with rounding to tiles.`, {
        op: owner,
        argument,
      });
    }
    this.tileSize = checkSize(owner, 'tileSize', options.tileSize ?? 128);
    this.rounding = checkOneOf(owner, 'rounding', options.rounding ?? 'nearest', ['nearest', 'up', 'down']);
  }

  protected override route(logits: Tensor, tokens: Tensor): Route {
    if (!this.training || logits.shape[0] === 0) return super.route(logits, tokens);
    const choice = this.choose(logits);
    const counts = expertCount(choice.topIdx, this.numExpert);
    this.afterChoice(this.demand(choice, logits, counts));
    const order = this.order(logits.detach(), choice.topIdx);
    return this.rows(this.allScores(logits, choice.topIdx), order, this.rounded(counts, logits.shape[0]!));
  }

  /** The scores of all experts as a token that chose `topIdx` sees them, `[T, N]`. */
  private allScores(logits: Tensor, topIdx: Tensor): Tensor {
    const scores = this.scoresOfAll(logits);
    if (!this.normalize && this.scoreFunction !== 'softmaxChosen') return this.scaled(scores);
    // exp(log score - log Σ chosen), which is finite where all scores vanish.
    const logScores = this.scoreFunction === 'sigmoid' ? logits.logSigmoid() : logits;
    return this.scaled(logScores.sub(logScores.gather(1, topIdx).logsumexp([1], true)).exp());
  }

  /** `[N]` int64 */
  private rounded(counts: Tensor, tokens: number): Tensor {
    const { tileSize, rounding } = this;
    const added = rounding === 'down' ? 0 : rounding === 'up' ? tileSize - 1 : Math.floor(tileSize / 2);
    return counts.add(added).floorDivide(tileSize).mul(tileSize).clampMax(tokens);
  }

  /** All tokens as each expert prefers them, `[N, T]`: those that chose it first, and among both the highest scores first. */
  private order(logits: Tensor, topIdx: Tensor): Tensor {
    const descending = { stable: true, dim: 1, descending: true } as const;
    const byScore = this.scoresOfAll(logits).t().argsort(descending);
    const chose = zerosLike(logits, { dtype: 'int64' }).scatter(1, topIdx, 1).t();
    return byScore.gather(1, chose.gather(1, byScore).argsort(descending));
  }

  /** The first `wanted` tokens `[N]` of each expert's order. */
  private rows(scores: Tensor, order: Tensor, wanted: Tensor): ExpertRoute {
    const [tokens, numExpert] = scores.shape as [number, number];
    const indices = { dtype: 'int64', device: scores.device } as const;
    const most = Math.min(tokens * this.topK + numExpert * (this.tileSize - 1), tokens * numExpert);
    const ends = wanted.cumsum(0);
    const place = arange(tokens, indices);
    const row = where(
      place.lt(wanted.unsqueeze(1)),
      ends.sub(wanted).unsqueeze(1).add(place),
      most, // past the last row, and cut off
    ).view([-1]);
    return {
      rowToken: full([most + 1], -1, indices)
        .scatter(0, row, order.reshape([-1]))
        .narrow(0, 0, most),
      offsets: cat([zeros([1], indices), ends]),
      rowScore: zeros([most + 1], { dtype: scores.dtype, device: scores.device })
        .scatter(0, row, scores.t().gather(1, order).reshape([-1]))
        .narrow(0, 0, most),
    };
  }
}
