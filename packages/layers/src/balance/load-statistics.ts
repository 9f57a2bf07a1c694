/** Shape letters: N all experts. */
import { nn, noGrad, type Tensor, zeros } from '@fmoe/torch';

/**
 * Counts how many slots each expert of a layer received. The counts stay on the layer's device and add up from step to step;
 * only {@link read} copies them to the host.
 */
export class LoadStatistics extends nn.Module {
  /** `[N]` int64. Not part of the state dict. */
  declare readonly counts: Tensor;
  /** When to count: in training mode, in both modes, or not at all. */
  when: 'training' | 'always' | 'never' = 'training';

  constructor(numExpert: number) {
    super();
    this.registerBuffer('counts', zeros([numExpert], { dtype: 'int64' }), { persistent: false });
  }

  /** Adds the counts of one forward pass, `[N]` int64. */
  add(counts: Tensor): void {
    if (this.when === 'never' || (this.when === 'training' && !this.training)) return;
    noGrad(() => this.counts.add_(counts));
  }

  /** Slots per expert since the last {@link reset}. On a GPU this waits for the device. */
  read(): number[] {
    return Array.from(this.counts.cpu().data() as BigInt64Array, Number);
  }

  /** Sets all counts to zero. */
  reset(): void {
    this.counts.zero_();
  }
}

/** Slots per expert of every MoE layer of a model, `[layer][expert]`, in the order of `model.modules()`. */
export function readExpertLoad(model: nn.Module, options: { reset?: boolean } = {}): number[][] {
  const loads: number[][] = [];
  for (const module of model.modules()) {
    if (!(module instanceof LoadStatistics)) continue;
    loads.push(module.read());
    if (options.reset) module.reset();
  }
  return loads;
}
