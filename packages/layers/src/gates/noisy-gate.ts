/** Shape letters: T tokens, D model width, N all experts, K top-k. */
import { routePlan } from '@fmoe/kernels';
import { empty, nn, randnLike, type Tensor, where, zerosLike } from '@fmoe/torch';
import { squaredVariation } from '../balance/balance-loss.js';
import { checkTokens } from '../check.js';
import { BaseGate, type GateOptions, type Route } from './base-gate.js';
import { atLeastFloat32, withoutAutocast } from './router-logits.js';

/** Added to the noise's standard deviation, so that it never vanishes in training. */
const leastNoise = 1e-2;

/**
 * Noisy top-k gating (Shazeer et al., 2017, arXiv 1701.06538, section 2.1 and appendix A): in training mode the logits get
 * Gaussian noise with a learned standard deviation, and the loss CV²(importance) + CV²(load) evens out both the scores and
 * the smooth estimate of how many tokens each expert receives. In evaluation mode there is neither noise nor loss.
 */
export class NoisyGate extends BaseGate {
  /** `[D, N]`, uniform in ±1/√D at first. */
  readonly w_gate: nn.Parameter;
  /** `[D, N]`, uniform in ±1/√D at first. */
  readonly w_noise: nn.Parameter;

  constructor(options: GateOptions) {
    super(options);
    const shape = [this.dModel, this.numExpert];
    this.w_gate = new nn.Parameter(empty(shape));
    this.w_noise = new nn.Parameter(empty(shape));
    const bound = 1 / Math.sqrt(this.dModel);
    nn.init.uniform_(this.w_gate, -bound, bound);
    nn.init.uniform_(this.w_noise, -bound, bound);
  }

  /**
   * @param x tokens `[T, D]`
   * @throws FmoeError `ERR_SHAPE` or `ERR_DTYPE` when `x` is no `[T, D]` of floating-point numbers.
   */
  override forward(x: Tensor): Route {
    checkTokens(this.constructor.name, x, this.dModel);
    return withoutAutocast(x, () => this.choose(x));
  }

  private choose(x: Tensor): Route {
    const tokens = atLeastFloat32(x);
    const clean = tokens.matmul(atLeastFloat32(this.w_gate));
    if (!this.training) {
      const [topLogits, topIdx] = clean.topk(this.topK, -1);
      return { topIdx, topScore: topLogits.softmax(-1) };
    }
    const deviation = tokens.matmul(atLeastFloat32(this.w_noise)).softplus().add(leastNoise);
    const noisy = clean.add(randnLike(clean).mul(deviation));
    const [best, order] = noisy.topk(Math.min(this.topK + 1, this.numExpert), -1);
    const topIdx = order.narrow(1, 0, this.topK).contiguous();
    const topScore = best.narrow(1, 0, this.topK).softmax(-1);
    const plan = routePlan(topIdx, this.numExpert);
    const importance = zerosLike(clean).scatter(1, topIdx, topScore).sum([0]);
    const load =
      this.topK === this.numExpert
        ? plan.counts.to(clean.dtype)
        : this.expectedLoad(clean, noisy, deviation, best);
    this.setLoss(squaredVariation(importance).add(squaredVariation(load)));
    return { topIdx, topScore, plan };
  }

  /**
   * Σ_t P(e is among the top k of token t when its noise is drawn anew), `[N]`: the noisy logit must pass the k-th largest
   * of the others, which is the (k+1)-th of all when e was chosen and the k-th when it was not.
   */
  private expectedLoad(clean: Tensor, noisy: Tensor, deviation: Tensor, best: Tensor): Tensor {
    const thresholdIfIn = best.narrow(1, this.topK, 1);
    const thresholdIfOut = best.narrow(1, this.topK - 1, 1);
    const threshold = where(noisy.gt(thresholdIfIn), thresholdIfIn, thresholdIfOut);
    return clean.sub(threshold).div(deviation).specialNdtr().sum([0]);
  }
}
