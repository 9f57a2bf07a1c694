/** Shape letters: D model width, R routed rows. */
import type { RoutePlan } from '@fmoe/kernels';
import type { nn, Tensor } from '@fmoe/torch';
import { type ExpertSource, isList, makeExperts } from './experts/expert-factory.js';
import { runExperts } from './experts/run-experts.js';
import { MoELayer, type MoEOptions } from './moe-layer.js';

/** Settings of {@link FMoE}. */
export interface FMoEOptions extends MoEOptions {
  /**
   * The experts: a module class or a function, called `numExpert` times, or a list of them, one for each expert. An
   * expert maps `[r, D]` to `[r, D']` for any number of rows, zero included.
   */
  expert: ExpertSource | readonly ExpertSource[];
}

/**
 * A Mixture-of-Experts layer with any gate and any experts.
 *
 * @example
 * class Expert extends nn.Module {
 *   readonly up: nn.Linear;
 *   constructor(dModel: number) { super(); this.up = new nn.Linear(dModel, dModel); }
 *   override forward(rows: Tensor) { return this.up.call(rows).relu(); }
 * }
 * const layer = new FMoE({ numExpert: 4, dModel: 16, topK: 2, expert: Expert });
 */
export class FMoE extends MoELayer {
  readonly experts: nn.ModuleList;

  /** @throws FmoeError `ERR_ARGUMENT` for wrong sizes, `topK > numExpert`, or sources that make no gate or expert. */
  constructor(options: FMoEOptions) {
    super(isList(options.expert) ? { ...options, numExpert: options.expert.length } : options);
    this.experts = makeExperts(options.expert, this.numExpert, this.dModel);
  }

  protected override runExperts(rows: Tensor, plan: RoutePlan): Tensor {
    return runExperts(this.experts, rows, plan.offsets);
  }
}
