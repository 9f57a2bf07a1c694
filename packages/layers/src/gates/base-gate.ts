/** Shape letters: T tokens, D model width, N all experts, K top-k. */
import type { RoutePlan } from '@fmoe/kernels';
import { nn, type Tensor } from '@fmoe/torch';
import { checkSize, checkTopK } from '../check.js';

/** What a gate decides for T tokens. */
export interface Route {
  /** Experts of each token `[T, K]`, int64; -1 drops the slot. */
  topIdx: Tensor;
  /** Factors of the experts' outputs `[T, K]`, floating-point, differentiable. */
  topScore: Tensor;
  /** The plan of `topIdx`, when the gate has already made it to count the experts' loads. */
  plan?: RoutePlan;
}

/** What a gate is made from. */
export interface GateOptions {
  /** Width D of a token. */
  dModel: number;
  /** Number of all experts N. */
  numExpert: number;
  /** Experts per token K. Default 2. */
  topK?: number;
  /** Give the router's projection a bias. Default true. */
  gateBias?: boolean;
}

/**
 * A router: `forward` maps tokens `[T, D]` to a {@link Route}.
 *
 * A gate may leave a balance loss with {@link setLoss}; `collectBalanceLoss(model)` gathers those of a whole model. Any
 * subclass works in `FMoE`, from any package.
 */
export abstract class BaseGate extends nn.Module {
  readonly dModel: number;
  readonly numExpert: number;
  readonly topK: number;
  #loss: Tensor | null = null;

  /** @throws FmoeError `ERR_ARGUMENT` for sizes that are no positive integers or `topK > numExpert`. */
  constructor(options: GateOptions) {
    super();
    const owner = new.target.name;
    this.dModel = checkSize(owner, 'dModel', options.dModel);
    this.numExpert = checkSize(owner, 'numExpert', options.numExpert);
    this.topK = checkTopK(owner, options.topK ?? 2, this.numExpert);
  }

  /** @param x tokens `[T, D]` */
  abstract override forward(x: Tensor): Route;

  /**
   * Leaves the balance loss of this forward pass, a scalar in the autograd graph. It stays in the scope of the step: when
   * that scope closes, the loss is gone.
   */
  setLoss(loss: Tensor | null): void {
    this.#loss = loss;
  }

  /** Whether the last forward pass left a loss that is still alive. */
  get hasLoss(): boolean {
    return this.#loss !== null && !this.#loss.isDisposed;
  }

  /** The loss, or null. By default the gate forgets it, so that it is not counted twice. */
  getLoss(clear = true): Tensor | null {
    const loss = this.hasLoss ? this.#loss : null;
    if (clear) this.#loss = null;
    return loss;
  }

  override extraRepr(): string {
    return `d_model=${this.dModel}, num_expert=${this.numExpert}, top_k=${this.topK}`;
  }
}
