/** Shape letters: L key length, D model width. */
import { arange, cat, keep, nn, noGrad, pow, type Tensor, tidy } from '@fmoe/torch';

/**
 * Sinusoids of the distance between a query and a key (Vaswani et al., 2017, section 3.5), sines in the first half of
 * the columns and cosines in the second.
 *
 * The table is computed for the longest key length seen so far; shorter ones are its last rows.
 */
export class PositionalEmbedding extends nn.Module {
  /** `[D/2]`: 1 / 10000^(2i/D). */
  declare readonly inv_freq: Tensor;
  readonly clampLen: number;
  #table: Tensor | undefined;

  /** @param clampLen distances above this count as this; -1 for no limit */
  constructor(dModel: number, clampLen: number) {
    super();
    this.clampLen = clampLen;
    const invFreq = tidy(() => pow(10000, arange(0, dModel, 2).div(dModel)).reciprocal());
    this.registerBuffer('inv_freq', invFreq);
  }

  /**
   * The distances L-1, …, 1, 0 and one more row, which only fills masked places of the shifted scores.
   *
   * @param klen key length L
   * @returns `[L+1, D]`, of the dtype and on the device of `inv_freq`
   */
  override forward(klen: number): Tensor {
    const { inv_freq } = this;
    let table = this.#table;
    if (
      !table ||
      table.dtype !== inv_freq.dtype ||
      table.device !== inv_freq.device ||
      table.shape[0]! <= klen
    ) {
      this.releaseTable();
      table = keep(this.compute(klen));
      this.#table = table;
    }
    const rows = table.shape[0]!;
    return rows === klen + 1 ? table : table.narrow(0, rows - klen - 1, klen + 1);
  }

  /** Frees the table; the next call computes it anew. */
  releaseTable(): void {
    this.#table?.dispose();
    this.#table = undefined;
  }

  private compute(klen: number): Tensor {
    return tidy(() =>
      noGrad(() => {
        const { dtype, device } = this.inv_freq;
        const limit = this.clampLen > 0 ? this.clampLen : klen;
        const distance = arange(klen - 1, -2, -1, { dtype, device }).clamp(0, limit);
        const angle = distance.outer(this.inv_freq);
        return cat([angle.sin(), angle.cos()], -1);
      }),
    );
  }

  override extraRepr(): string {
    return `clamp_len=${this.clampLen}`;
  }
}
