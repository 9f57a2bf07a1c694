/** Shape letters: T tokens, D model width, N all experts, K top-k. */
import { topkGate } from '@fmoe/kernels';
import { empty, nn, type Tensor, where } from '@fmoe/torch';
import { squaredVariation } from '../balance/balance-loss.js';
import { differentiableSum } from './global-batch.js';
import { type Choice, RouterGate, type RouterOptions } from './router-gate.js';
import { routerLogits, toRouterDtype } from './router-logits.js';

/** Added to the noise's standard deviation, so that it never vanishes in training. */
const leastNoise = 1e-2;

/**
 * Noisy top-k gating (Shazeer et al., 2017, arXiv 1701.06538, section 2.1 and appendix A): in training mode the logits get
 * Gaussian noise with a learned standard deviation, and the losses CV²(importance) + CV²(load) even out both the scores and
 * the smooth estimate of how many tokens each expert receives. In evaluation mode there is neither noise nor loss.
 *
 * The losses are named `balance` and `load`; with another kind of `balance` than `'importance'` there is no `load`.
 */
export class NoisyGate extends RouterGate {
  static override readonly optionNames: readonly string[] = super.optionNames;

  /** `[D, N]`, uniform in ±1/√D at first. */
  readonly w_gate: nn.Parameter;
  /** `[D, N]`, uniform in ±1/√D at first. */
  readonly w_noise: nn.Parameter;

  constructor(options: RouterOptions) {
    super(options, 'importance');
    const shape = [this.dModel, this.numExpert];
    this.w_gate = new nn.Parameter(empty(shape));
    this.w_noise = new nn.Parameter(empty(shape));
    const bound = 1 / Math.sqrt(this.dModel);
    nn.init.uniform_(this.w_gate, -bound, bound);
    nn.init.uniform_(this.w_noise, -bound, bound);
  }

  protected override project(tokens: Tensor): Tensor {
    return routerLogits(tokens, this.w_gate.t(), null, this.routerDtype);
  }

  protected override choose(clean: Tensor, tokens: Tensor): Choice {
    if (!this.training) return super.choose(clean, tokens);
    const deviation = routerLogits(tokens, this.w_noise.t(), null, this.routerDtype)
      .softplus()
      .add(leastNoise);
    const noisy = clean.add(this.drawNormal(clean).mul(deviation));
    if (this.balance === 'importance') this.setLoss(this.loadLoss(clean, noisy, deviation), 'load');
    return topkGate(noisy, this.topK);
  }

  private loadLoss(clean: Tensor, noisy: Tensor, deviation: Tensor): Tensor {
    // Every expert takes every token: the load is even.
    if (this.topK === this.numExpert) return clean.mul(0).sum();
    // In float32 at least: a sum over all tokens does not fit half precision.
    const wide = [clean, noisy, deviation].map((logits) => toRouterDtype(logits, null));
    const load = differentiableSum(this.expectedLoad(...(wide as [Tensor, Tensor, Tensor])), this.batchGroup);
    return squaredVariation(load).mul(this.balanceWeight);
  }

  /**
   * Σ_t P(e is among the top k of token t when its noise is drawn anew), `[N]`: the noisy logit must pass the k-th largest
   * of the others, which is the (k+1)-th of all when e was chosen and the k-th when it was not.
   */
  private expectedLoad(clean: Tensor, noisy: Tensor, deviation: Tensor): Tensor {
    const [best] = noisy.topk(this.topK + 1, -1);
    const thresholdIfIn = best.narrow(1, this.topK, 1);
    const thresholdIfOut = best.narrow(1, this.topK - 1, 1);
    const threshold = where(noisy.gt(thresholdIfIn), thresholdIfIn, thresholdIfOut);
    return clean.sub(threshold).div(deviation).specialNdtr().sum([0]);
  }
}
