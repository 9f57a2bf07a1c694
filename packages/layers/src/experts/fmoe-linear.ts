/** Shape letters: E local experts, R routed rows. */
import { groupedLinear } from '@fmoe/kernels';
import { checkBoolean, empty, nn, type Tensor, tidy } from '@fmoe/torch';
import { checkOptionsOf, checkSize } from '../check.js';
import type { RowCost } from '../inspect/row-cost.js';
import { drawExperts, type ExpertParameter, type LocalExperts } from '../parallel/local-experts.js';

/** Settings of {@link FMoELinear}. */
export interface FMoELinearOptions {
  numExpert: number;
  inFeatures: number;
  outFeatures: number;
  /** Default true. */
  bias?: boolean;
  /** Which of the experts of all ranks these are; they start with the values that they have on one process. */
  local?: LocalExperts;
}

/**
 * One linear layer per expert, y = x Wₑᵀ + bₑ for the rows of expert e, all in one grouped operator.
 *
 * Weights and biases start uniform in ±1/√inFeatures, like `nn.Linear`, for each expert.
 */
export class FMoELinear extends nn.Module {
  static readonly optionNames: readonly string[] = [
    'numExpert',
    'inFeatures',
    'outFeatures',
    'bias',
    'local',
  ];

  readonly numExpert: number;
  readonly inFeatures: number;
  readonly outFeatures: number;
  /** `[E, outFeatures, inFeatures]` */
  weight: nn.Parameter;
  /** `[E, outFeatures]`, or null */
  bias: nn.Parameter | null;

  /** @throws FmoeError `ERR_ARGUMENT` for sizes that are no positive integers. */
  constructor(options: FMoELinearOptions) {
    super();
    checkOptionsOf(new.target, options);
    this.numExpert = checkSize('FMoELinear', 'numExpert', options.numExpert, options.local ? 0 : 1);
    this.inFeatures = checkSize('FMoELinear', 'inFeatures', options.inFeatures);
    this.outFeatures = checkSize('FMoELinear', 'outFeatures', options.outFeatures);
    const { numExpert, inFeatures, outFeatures, bias = true } = options;
    checkBoolean('FMoELinear', 'bias', bias);
    this.weight = tidy(() => new nn.Parameter(empty([numExpert, outFeatures, inFeatures])));
    this.bias = bias ? tidy(() => new nn.Parameter(empty([numExpert, outFeatures]))) : null;
    for (const parameter of this.parameters()) {
      if (options.local) (parameter as ExpertParameter).experts = options.local;
    }
    this.resetParameters();
  }

  /** Draws new initial values. */
  resetParameters(): void {
    const bound = 1 / Math.sqrt(this.inFeatures);
    for (const parameter of this.parameters()) {
      drawExperts(parameter, (all) => nn.init.uniform_(all, -bound, bound));
    }
  }

  /**
   * @param rows `[R, inFeatures]`, the rows of an expert next to each other, experts in order
   * @param offsets `[E+1]` int64: rows of expert e are `offsets[e]` to `offsets[e+1] - 1`; rows past the last are padding
   * @returns `[R, outFeatures]`, zeros in padding rows
   */
  override forward(rows: Tensor, offsets: Tensor): Tensor {
    return groupedLinear(rows, this.weight, this.bias, offsets);
  }

  /** What one row costs, see `rowCost`. */
  costPerRow(): RowCost {
    return { flops: 2 * this.inFeatures * this.outFeatures, savedNumbers: 0 };
  }

  override extraRepr(): string {
    const { numExpert, inFeatures, outFeatures } = this;
    return `num_expert=${numExpert}, in_features=${inFeatures}, out_features=${outFeatures}, bias=${this.bias ? 'True' : 'False'}`;
  }
}
