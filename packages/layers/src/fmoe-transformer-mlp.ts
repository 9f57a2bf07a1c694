/** Shape letters: D model width, H hidden width. */
import type { Tensor } from '@fmoe/torch';
import { checkOptionsOf, checkSize } from './check.js';
import type { ExpertActivation } from './experts/expert-activation.js';
import { ExpertMLP } from './experts/expert-mlp.js';
import { FMoE } from './fmoe.js';
import type { MoEOptions } from './moe-layer.js';
import type { LocalExperts } from './parallel/local-experts.js';

/** Settings of {@link FMoETransformerMLP}. */
export interface FMoETransformerMLPOptions extends MoEOptions {
  /** Width H between the two linear layers of an expert. Default 4096. */
  dHidden?: number;
  /**
   * What is applied between them, to the rows of all experts at once: a module, or `'gelu'` (exact, the default), `'geluTanh'`,
   * `'relu'`, `'silu'`, or gated `'swiglu'`, `'geglu'`, `'reglu'`.
   */
  activation?: ExpertActivation;
  /** Give the experts' layers a bias. Default true. */
  bias?: boolean;
  /** Tag of the experts' parameters, see {@link MoELayer.markParallelComm}. Default `'none'`. */
  expertDpComm?: string;
  /** Use the fused operator where it can be. Default true. */
  fused?: boolean;
}

/**
 * The feed-forward block of a transformer as a Mixture-of-Experts: N two-layer MLPs, computed for all experts together, with
 * activations of the names above in one operator from tokens to tokens.
 *
 * It adds no residual connection and no normalisation. Its parameters are `gate.*`, `experts.htoh4.{weight,bias}` and
 * `experts.h4toh.{weight,bias}`; of a gated activation, `htoh4` holds the rows of the gate first, then those of the linear
 * part.
 */
export class FMoETransformerMLP extends FMoE<Tensor> {
  static override readonly optionNames: readonly string[] = [
    ...super.optionNames.filter((name) => name !== 'expert' && name !== 'experts'),
    'dHidden',
    'activation',
    'bias',
    'expertDpComm',
  ];

  declare readonly experts: ExpertMLP;

  /** @throws FmoeError `ERR_ARGUMENT` for wrong sizes, `topK` above the experts, or a source that makes no gate. */
  constructor(options: FMoETransformerMLPOptions = {}) {
    checkOptionsOf(new.target, options);
    const { activation, bias } = options;
    const dHidden = checkSize(new.target.name, 'dHidden', options.dHidden ?? 4096);
    const experts = (numExpert: number, dModel: number, local: LocalExperts) =>
      new ExpertMLP({
        numExpert,
        local,
        dModel,
        dHidden,
        ...(activation !== undefined && { activation }),
        ...(bias !== undefined && { bias }),
      });
    super({ ...options, experts });
    this.markParallelComm(options.expertDpComm ?? 'none');
  }
}
