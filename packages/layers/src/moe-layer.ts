/** Shape letters: T tokens, D model width, N all experts, K top-k, R routed rows. */
import { combine, dispatch, type RoutePlan, routePlan } from '@fmoe/kernels';
import { FmoeError, nn, type Tensor } from '@fmoe/torch';
import { LoadStatistics } from './balance/load-statistics.js';
import { checkSize, checkTokens, checkTopK } from './check.js';
import type { BaseGate, Route } from './gates/base-gate.js';
import { type GateSource, makeGate } from './gates/gate-factory.js';
import { NaiveGate } from './gates/naive-gate.js';

/** What every MoE layer is made from. */
export interface MoEOptions {
  /** Number of experts. Default 32. */
  numExpert?: number;
  /** Width D of a token. Default 1024. */
  dModel?: number;
  /** Experts per token K. Default 2. */
  topK?: number;
  /** A gate's class, a function that makes one, or a gate. Default {@link NaiveGate}. */
  gate?: GateSource;
  /** Give the router's projection a bias. Default true. */
  gateBias?: boolean;
}

/**
 * A Mixture-of-Experts layer without experts of its own: the gate chooses K of them for each token, their rows are brought
 * together, and the outputs are added up with the gate's scores.
 *
 * A slot that the gate drops (-1) adds nothing; scores are not rescaled for it.
 */
export abstract class MoELayer extends nn.Module {
  readonly numExpert: number;
  readonly dModel: number;
  readonly topK: number;
  readonly gate: BaseGate;
  abstract readonly experts: nn.Module;
  /** Slots per expert, counted in training mode. */
  readonly load: LoadStatistics;

  /** @throws FmoeError `ERR_ARGUMENT` for sizes that are no positive integers, `topK > numExpert`, or no gate. */
  constructor(options: MoEOptions) {
    super();
    const owner = new.target.name;
    this.numExpert = checkSize(owner, 'numExpert', options.numExpert ?? 32);
    this.dModel = checkSize(owner, 'dModel', options.dModel ?? 1024);
    this.topK = checkTopK(owner, options.topK ?? 2, this.numExpert);
    const { numExpert, dModel, topK } = this;
    const gateBias = options.gateBias ?? true;
    this.gate = makeGate(options.gate ?? NaiveGate, { numExpert, dModel, topK, gateBias });
    this.load = new LoadStatistics(numExpert);
  }

  /**
   * @param x tokens `[..., D]`
   * @returns `[..., D']`, where D' is the width of the experts' outputs
   * @throws FmoeError `ERR_SHAPE` or `ERR_DTYPE` for tokens of another width or kind, and when gate or expert return
   * something of the wrong shape.
   */
  override forward(x: Tensor): Tensor {
    const { shape } = x;
    const { dModel } = this;
    checkTokens(this.constructor.name, x, dModel);
    if (shape.length === 2) return this.route(x);
    const output = this.route(x.reshape([shape.slice(0, -1).reduce((a, b) => a * b, 1), dModel]));
    return output.reshape([...shape.slice(0, -1), output.shape[1]!]);
  }

  /** The output of the experts for rows that are grouped by expert, `[R, D]` to `[R, D']`. */
  protected abstract runExperts(rows: Tensor, plan: RoutePlan): Tensor;

  private route(x: Tensor): Tensor {
    const route = this.gate.call(x);
    this.checkRoute(route, x.shape[0]!);
    const plan = route.plan ?? routePlan(route.topIdx, this.numExpert);
    this.load.add(plan.counts);
    const rows = dispatch(x, plan.rowSlot, plan.slotRow);
    return combine(this.runExperts(rows, plan), route.topScore, plan.slotRow);
  }

  private checkRoute(route: Route, tokens: number): void {
    const { topIdx, topScore } = route;
    const index = topIdx.shape;
    const score = topScore.shape;
    const fits = index.length === 2 && index[0] === tokens && score.length === 2;
    if (fits && score[0] === tokens && score[1] === index[1]) return;
    throw new FmoeError(
      'ERR_SHAPE',
      `${this.constructor.name}: the gate returned topIdx [${index.join(', ')}] and topScore [${score.join(', ')}], ` +
        `expected [${tokens}, K] for both.`,
      { op: this.constructor.name, argument: 'gate', shapes: [index, score] },
    );
  }

  override extraRepr(): string {
    return `num_expert=${this.numExpert}, d_model=${this.dModel}, top_k=${this.topK}`;
  }
}
