/** Shape letters: T tokens, N all experts, K top-k. */
import { checkOptions, isGradEnabled, nn, noGrad, type Tensor, zeros } from '@fmoe/torch';

/**
 * Counts how many slots each expert of a layer received. The counts stay on the layer's device and add up from step to step;
 * only {@link read} copies them to the host.
 */
export class LoadStatistics extends nn.Module {
  /** `[N]` int64. Not part of the state dict. */
  declare readonly counts: Tensor;
  /** `[1]` int64: the slots that the tokens had, those without an expert included. Not part of the state dict. */
  declare readonly slots: Tensor;
  /**
   * When to count: in training mode with gradients, always, or not at all. A checkpointed pass runs twice, the first time without
   * gradients.
   */
  when: 'training' | 'always' | 'never' = 'training';

  constructor(numExpert: number) {
    super();
    this.registerBuffer('counts', zeros([numExpert], { dtype: 'int64' }), { persistent: false });
    this.registerBuffer('slots', zeros([1], { dtype: 'int64' }), { persistent: false });
  }

  /**
   * Adds the counts of one forward pass.
   *
   * @param counts `[N]` int64
   * @param slots how many slots the tokens had, T·K; what the counts lack of them was dropped. Unknown when left out.
   */
  add(counts: Tensor, slots?: number): void {
    if (this.when === 'never' || (this.when === 'training' && !(this.training && isGradEnabled()))) return;
    noGrad(() => {
      this.counts.add_(counts);
      if (slots !== undefined) this.slots.add_(slots);
    });
  }

  /** Slots per expert since the last {@link reset}. On a GPU this waits for the device. */
  read(): number[] {
    return Array.from(this.counts.cpu().data() as BigInt64Array, Number);
  }

  /** The share of the slots that went to no expert, at least 0; null when it was not counted. Waits like {@link read}. */
  readDroppedShare(): number | null {
    const [slots] = Array.from(this.slots.cpu().data() as BigInt64Array, Number) as [number];
    if (slots === 0) return null;
    const routed = this.read().reduce((a, b) => a + b, 0);
    return Math.max(0, 1 - routed / slots);
  }

  /** Sets all counts to zero. */
  reset(): void {
    this.counts.zero_();
    this.slots.zero_();
  }
}

/** Slots per expert of every MoE layer of a model, `[layer][expert]`, in the order of `model.modules()`. */
export function readExpertLoad(model: nn.Module, options: { reset?: boolean } = {}): number[][] {
  checkOptions('readExpertLoad', options, ['reset']);
  const loads: number[][] = [];
  for (const module of model.modules()) {
    if (!(module instanceof LoadStatistics)) continue;
    loads.push(module.read());
    if (options.reset) module.reset();
  }
  return loads;
}
