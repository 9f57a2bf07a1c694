/** Shape letters: T tokens, W ranks. */
import type { Tensor } from '@fmoe/torch';
import { GShardGate } from './gshard-gate.js';

/**
 * {@link GShardGate} with a distributed capacity: an expert takes ⌈factor · T⌉ slots from all ranks of the group together, T
 * being the mean number of a rank's tokens. Ranks are served in their order, the first choices of all before any second one.
 */
export class DCGate extends GShardGate {
  static override readonly optionNames: readonly string[] = super.optionNames;

  protected override get sharesCapacity(): boolean {
    return true;
  }

  protected override slotsPerExpert(tokens: Tensor, factor: number): Tensor {
    return tokens
      .div(this.group?.size ?? 1)
      .mul(factor)
      .ceil();
  }
}
