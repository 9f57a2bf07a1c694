/** Shape letters: E local experts, D model width, H hidden width, R routed rows. */
import { nn, type Tensor } from '@fmoe/torch';
import { FMoELinear } from './fmoe-linear.js';

/** Settings of {@link ExpertMLP}. */
export interface ExpertMLPOptions {
  numExpert: number;
  /** Width D of a token. */
  dModel: number;
  /** Width H between the two linear layers. */
  dHidden: number;
  /** What is applied between them, to the rows of all experts at once. Default exact GELU. */
  activation?: nn.Module;
}

/** Two linear layers per expert with an activation between them, computed for all experts together. */
export class ExpertMLP extends nn.Module {
  /** `[E, H, D]`, `[E, H]` */
  readonly htoh4: FMoELinear;
  /** `[E, D, H]`, `[E, D]` */
  readonly h4toh: FMoELinear;
  readonly activation: nn.Module;

  /** @throws FmoeError `ERR_ARGUMENT` for sizes that are no positive integers. */
  constructor(options: ExpertMLPOptions) {
    super();
    const { numExpert, dModel, dHidden } = options;
    this.htoh4 = new FMoELinear({ numExpert, inFeatures: dModel, outFeatures: dHidden });
    this.h4toh = new FMoELinear({ numExpert, inFeatures: dHidden, outFeatures: dModel });
    this.activation = options.activation ?? new nn.GELU();
  }

  /**
   * @param rows `[R, D]`, grouped by expert
   * @param offsets `[E+1]` int64, where each expert's rows begin
   * @returns `[R, D]`
   */
  override forward(rows: Tensor, offsets: Tensor): Tensor {
    const hidden = this.htoh4.forward(rows, offsets);
    return this.h4toh.forward(this.activation.call(hidden), offsets);
  }
}
