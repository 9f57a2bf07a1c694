/** Shape letters: T tokens, E local experts, D model width, H hidden width, K top-k, R routed rows. */
import { type MoeActivation, moeMlp, type RoutePlan } from '@fmoe/kernels';
import { nn, type Tensor } from '@fmoe/torch';
import { checkOptionsOf } from '../check.js';
import type { RowCost } from '../inspect/row-cost.js';
import type { LocalExperts } from '../parallel/local-experts.js';
import { type ExpertActivation, fusedActivation, makeActivation, runs } from './expert-activation.js';
import { FMoELinear } from './fmoe-linear.js';
import { GatedActivation } from './gated-activation.js';
import type { LoRALinear } from './lora.js';

/** Settings of {@link ExpertMLP}. */
export interface ExpertMLPOptions {
  numExpert: number;
  /** Width D of a token. */
  dModel: number;
  /** Width H between the two linear layers. */
  dHidden: number;
  /** What is applied between them, to the rows of all experts at once. Default exact GELU. */
  activation?: ExpertActivation;
  /** Give both layers a bias. Default true. */
  bias?: boolean;
  /** Which of the experts of all ranks these are. */
  local?: LocalExperts;
}

/**
 * Two linear layers per expert with an activation between them, computed for all experts together.
 *
 * With a gated activation `htoh4` has 2H outputs, the rows of the gate first and those of the linear part after them: one
 * matrix under one name, as other systems keep it (`linear_fc1`, `gate_up_proj`).
 */
export class ExpertMLP extends nn.Module {
  static readonly optionNames: readonly string[] = [
    'numExpert',
    'dModel',
    'dHidden',
    'activation',
    'bias',
    'local',
  ];

  /** `[E, H, D]`, `[E, H]`; gated `[E, 2H, D]`, `[E, 2H]` */
  htoh4: FMoELinear | LoRALinear;
  /** `[E, D, H]`, `[E, D]` */
  h4toh: FMoELinear | LoRALinear;
  readonly activation: nn.Module;

  /** @throws FmoeError `ERR_ARGUMENT` for sizes that are no positive integers, or an unknown activation. */
  constructor(options: ExpertMLPOptions) {
    super();
    checkOptionsOf(new.target, options);
    const { numExpert, dModel, dHidden, bias = true, local } = options;
    const common = { numExpert, bias, ...(local && { local }) };
    const activation = makeActivation(new.target.name, options.activation ?? 'gelu');
    const width = activation instanceof GatedActivation ? 2 * dHidden : dHidden;
    this.htoh4 = new FMoELinear({ ...common, inFeatures: dModel, outFeatures: width });
    this.h4toh = new FMoELinear({ ...common, inFeatures: dHidden, outFeatures: dModel });
    this.activation = activation;
  }

  /**
   * @param rows `[R, D]`, grouped by expert
   * @param offsets `[E+1]` int64, where each expert's rows begin
   * @returns `[R, D]`
   */
  override forward(rows: Tensor, offsets: Tensor): Tensor {
    const hidden = this.htoh4.call(rows, offsets);
    return this.h4toh.call(this.activation.call(hidden), offsets);
  }

  /**
   * The fused operator's name of the activation, or null where something forces the steps one by one: an activation that the
   * operator does not know, a layer or `forward` that was replaced, hooks.
   */
  get fusedActivation(): MoeActivation | null {
    const { htoh4, h4toh } = this;
    if (!runs(this, ExpertMLP) || this.hasForwardHooks || !isPlain(htoh4) || !isPlain(h4toh)) return null;
    return fusedActivation(this.activation);
  }

  /**
   * From tokens to tokens in one operator that neither makes nor keeps the rows in between, or null where
   * {@link fusedActivation} is.
   *
   * @param x `[T, D]`
   * @param topScore `[T, K]`
   * @returns `[T, D]`, the same as dispatch, {@link forward} and combine
   */
  runFused(x: Tensor, topScore: Tensor, plan: RoutePlan): Tensor | null {
    const activation = this.fusedActivation;
    if (activation === null) return null;
    const { htoh4, h4toh } = this;
    const weights = { w1: htoh4.weight, b1: htoh4.bias, w2: h4toh.weight, b2: h4toh.bias };
    return moeMlp(x, weights, topScore, plan, activation);
  }

  /** Numbers that the first layer gives for a row: H, or 2H where the activation is gated. */
  get preActivationWidth(): number {
    return this.htoh4.outFeatures;
  }

  /** What one row costs, see `rowCost`. Of a gated activation the gate's part is kept as well. */
  costPerRow(): RowCost {
    const { htoh4, h4toh } = this;
    const hidden = h4toh.inFeatures;
    const [first, second] = [htoh4.costPerRow(), h4toh.costPerRow()];
    const isGated = htoh4.outFeatures !== hidden;
    return {
      flops: first.flops + second.flops,
      savedNumbers: htoh4.outFeatures + hidden * (isGated ? 2 : 1) + first.savedNumbers + second.savedNumbers,
    };
  }
}

function isPlain(linear: nn.Module): boolean {
  return runs(linear, FMoELinear) && !linear.hasForwardHooks;
}
