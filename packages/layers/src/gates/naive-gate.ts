/** Shape letters: T tokens, D model width, N all experts, K top-k. */
import { routePlan } from '@fmoe/kernels';
import { nn, type Tensor } from '@fmoe/torch';
import { balanceLoss } from '../balance/balance-loss.js';
import { checkTokens } from '../check.js';
import { BaseGate, type GateOptions, type Route } from './base-gate.js';
import { routerLogits } from './router-logits.js';

/** Settings of {@link NaiveGate}. */
export interface NaiveGateOptions extends GateOptions {
  /** Leave the balance loss of `balanceLoss()` on the gate in training mode. Default true. */
  balance?: boolean;
}

/**
 * Top-k of linear logits; the score is the softmax over the k logits that were chosen.
 *
 * With `topK` 1 the score is always 1, and the router learns from the balance loss alone.
 */
export class NaiveGate extends BaseGate {
  /** The router's projection: weight `[N, D]`, bias `[N]`. */
  readonly gate: nn.Linear;
  readonly balance: boolean;

  constructor(options: NaiveGateOptions) {
    super(options);
    this.gate = new nn.Linear(this.dModel, this.numExpert, { bias: options.gateBias ?? true });
    this.balance = options.balance ?? true;
  }

  /**
   * @param x tokens `[T, D]`
   * @throws FmoeError `ERR_SHAPE` or `ERR_DTYPE` when `x` is no `[T, D]` of floating-point numbers.
   */
  override forward(x: Tensor): Route {
    checkTokens(this.constructor.name, x, this.dModel);
    const logits = routerLogits(x, this.gate.weight, this.gate.bias);
    const [topLogits, topIdx] = this.select(logits);
    const topScore = topLogits.softmax(-1);
    if (!this.training || !this.balance) return { topIdx, topScore };
    const plan = routePlan(topIdx, this.numExpert);
    this.setLoss(balanceLoss(logits, plan.counts, topIdx.numel()));
    return { topIdx, topScore, plan };
  }

  /**
   * The choice: the K largest logits, the largest first. Subclasses may choose otherwise.
   *
   * @param logits `[T, N]`
   * @returns the chosen logits and their experts, both `[T, K]`
   */
  protected select(logits: Tensor): [Tensor, Tensor] {
    const [topLogits, topIdx] = logits.topk(this.topK, -1);
    return [topLogits, topIdx];
  }
}
