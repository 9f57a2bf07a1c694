/** Shape letters: D model width, H hidden width, R routed rows. */
import type { RoutePlan } from '@fmoe/kernels';
import type { nn, Tensor } from '@fmoe/torch';
import { checkSize } from './check.js';
import { ExpertMLP } from './experts/expert-mlp.js';
import { MoELayer, type MoEOptions } from './moe-layer.js';

/** Settings of {@link FMoETransformerMLP}. */
export interface FMoETransformerMLPOptions extends MoEOptions {
  /** Width H between the two linear layers of an expert. Default 4096. */
  dHidden?: number;
  /** What is applied between them, to the rows of all experts at once. Default exact GELU. */
  activation?: nn.Module;
}

/**
 * The feed-forward block of a transformer as a Mixture-of-Experts: N two-layer MLPs, computed for all experts together.
 *
 * It adds no residual connection and no normalisation. Its parameters are `gate.*`, `experts.htoh4.{weight,bias}` and
 * `experts.h4toh.{weight,bias}`.
 */
export class FMoETransformerMLP extends MoELayer {
  readonly experts: ExpertMLP;

  /** @throws FmoeError `ERR_ARGUMENT` for wrong sizes, `topK > numExpert`, or a source that makes no gate. */
  constructor(options: FMoETransformerMLPOptions = {}) {
    super(options);
    const { numExpert, dModel } = this;
    const dHidden = checkSize('FMoETransformerMLP', 'dHidden', options.dHidden ?? 4096);
    const { activation } = options;
    this.experts = new ExpertMLP({ numExpert, dModel, dHidden, ...(activation && { activation }) });
  }

  protected override runExperts(rows: Tensor, plan: RoutePlan): Tensor {
    return this.experts.call(rows, plan.offsets);
  }
}
