/** Shape letters: N all experts. */
import { isGradEnabled, noGrad, type Tensor, tidy, zeros } from '@fmoe/torch';
import { checkNumber, checkOneOf, withDefaults } from './check-options.js';
import { sumOverBatch } from './global-batch.js';
import type { Demand } from './router-gate.js';
import { TopKGate, type TopKGateOptions } from './topk-gate.js';

/** Settings of {@link BiasBalancedGate}. */
export interface BiasBalancedGateOptions extends TopKGateOptions {
  /** The step u by which a bias moves. 0 leaves the biases as they are. Default 0.001. */
  biasUpdateRate?: number;
  /**
   * `'automatic'`: the biases move at the end of each forward pass in training mode; `'manual'`: the loads add up until
   * {@link BiasBalancedGate.updateBias} is called, such as after each optimizer step. Default `'automatic'`.
   */
  biasUpdate?: 'automatic' | 'manual';
}

/**
 * {@link TopKGate} that is balanced without a loss (Wang et al., 2024, arXiv 2408.15664; DeepSeek-V3, arXiv 2412.19437): each
 * expert has a bias that is added to its score for the choice, not for the score that weights its output. After a step
 * bₑ += u · sign(mean load - loadₑ), with the loads of all ranks of the group.
 *
 * The bias is in the state dict and stays in float32 at least. Default: `balance` false.
 */
export class BiasBalancedGate extends TopKGate {
  static override readonly optionNames: readonly string[] = [
    ...super.optionNames,
    'biasUpdateRate',
    'biasUpdate',
  ];

  readonly biasUpdateRate: number;
  readonly biasUpdate: 'automatic' | 'manual';
  /** `[N]`, zeros at first. */
  declare readonly expert_bias: Tensor;
  /** `[N]` int64: the slots that chose each expert since the last update. Not part of the state dict. */
  declare readonly tokensPerExpert: Tensor;

  /** @throws FmoeError `ERR_ARGUMENT` for settings out of range. */
  constructor(options: BiasBalancedGateOptions) {
    super(withDefaults({ balance: false }, options));
    const owner = this.constructor.name;
    this.biasUpdateRate = checkNumber(owner, 'biasUpdateRate', options.biasUpdateRate ?? 1e-3);
    this.biasUpdate = checkOneOf(owner, 'biasUpdate', options.biasUpdate ?? 'automatic', [
      'automatic',
      'manual',
    ]);
    // A step of 0.001 would vanish in half precision.
    this.registerBuffer('expert_bias', zeros([this.numExpert]), { keepsPrecision: true });
    this.registerBuffer('tokensPerExpert', zeros([this.numExpert], { dtype: 'int64' }), {
      persistent: false,
    });
  }

  protected override selectionBias(): Tensor {
    return this.expert_bias;
  }

  protected override afterChoice(demand: Demand): void {
    super.afterChoice(demand);
    // A checkpointed pass runs twice and must choose the same both times: only the second one, with gradients, counts.
    if (!isGradEnabled()) return;
    noGrad(() => this.tokensPerExpert.add_(demand.counts));
    if (this.biasUpdate === 'automatic') this.updateBias();
  }

  /** Moves the biases by the loads since the last time. Every rank of the group calls it. */
  updateBias(): void {
    const { numExpert, group } = this;
    noGrad(() =>
      tidy(() => {
        const loads = sumOverBatch(this.tokensPerExpert, group);
        // In whole numbers, so that a load that is exactly even leaves its bias alone.
        const direction = loads.sum().sub(loads.mul(numExpert)).sign();
        const bias = this.selectionBias();
        bias.add_(direction.to(bias.dtype).mul(this.biasUpdateRate));
        this.tokensPerExpert.zero_();
      }),
    );
  }
}
