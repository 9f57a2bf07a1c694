/** Shape letters: T tokens, D model width, N all experts, K top-k. */
import { balanceLoss, expertCount, routePlan, topkGate, zLoss } from '@fmoe/kernels';
import { checkBoolean, nn, rand, randn, type Tensor } from '@fmoe/torch';
import { importanceOf, squaredVariation } from '../balance/balance-loss.js';
import { checkTokens } from '../check.js';
import { BaseGate, type GateOptions } from './base-gate.js';
import { type Capacity, checkCapacity, limitSlots } from './capacity.js';
import { checkFraction, checkNumber, checkOneOf } from './check-options.js';
import { differentiableSum, drawRows, meanOfRanks, meanOverBatch, sumOverBatch } from './global-batch.js';
import type { Route, TokenRoute } from './route.js';
import {
  type RouterDtype,
  routerDtypes,
  routerLogits,
  toRouterDtype,
  withoutAutocast,
} from './router-logits.js';

const balanceKinds = ['switch', 'gshard', 'importance'] as const;

/**
 * What a balance loss evens out. `'switch'`: N · Σ f·P with f the experts' shares of all K choices (Fedus et al., arXiv
 * 2101.03961); `'gshard'`: the same with the shares of the first choices (Lepikhin et al., arXiv 2006.16668);
 * `'importance'`: CV² of the experts' summed scores (Shazeer et al., arXiv 1701.06538, equation 6). P is the mean
 * probability that the router gives an expert. What a capacity drops counts as chosen.
 */
export type BalanceKind = (typeof balanceKinds)[number];

/** Settings of every gate with a router. Each gate's class says where its defaults differ. */
export interface RouterOptions extends GateOptions {
  /** The balance loss in training mode: a kind, true for the gate's own default, or false for none. */
  balance?: BalanceKind | boolean;
  /** Factor of the balance loss. Default 1. */
  balanceWeight?: number;
  /** Factor of the z-loss (Zoph et al., ST-MoE, arXiv 2202.08906), which keeps logits small. Default 0. */
  zLossWeight?: number;
  /**
   * Slots that an expert takes, as a factor of its even share T·K/N: one number, or one for training and one for evaluation;
   * null keeps all. First choices come before second ones, then tokens in their order. Default null.
   */
  capacity?: Capacity;
  /** In training mode multiply the router's input by numbers from U(1 - jitter, 1 + jitter) (Switch). Default 0. */
  jitter?: number;
  /** Where the logits are computed. Default float32, and float64 for float64 tokens. */
  routerDtype?: RouterDtype;
}

/** What a gate chooses from its logits. */
export interface Choice {
  /** `[T, K]` int64, the best expert first; -1 drops the slot. */
  topIdx: Tensor;
  /** `[T, K]`, floating-point. */
  topScore: Tensor;
  /** What the tokens would have chosen without the gate's own limits, which is what a balance loss evens out. */
  wanted?: Choice;
}

/** A choice in training mode, before any capacity. */
export interface Demand extends Choice {
  /** `[T, N]`, see {@link RouterGate.probability}. */
  probability: Tensor;
  /** `[N]` int64: slots that chose each expert. */
  counts: Tensor;
}

/**
 * A gate that computes logits and chooses experts for each token by them. A subclass says how the logits come about and
 * what is chosen; dtype, jitter, capacity and losses are the same for all.
 */
export abstract class RouterGate extends BaseGate {
  static override readonly optionNames: readonly string[] = [
    ...super.optionNames,
    'balance',
    'balanceWeight',
    'zLossWeight',
    'capacity',
    'jitter',
    'routerDtype',
  ];

  readonly balance: BalanceKind | null;
  readonly balanceWeight: number;
  readonly zLossWeight: number;
  readonly capacity: readonly [train: number | null, evaluation: number | null];
  readonly jitter: number;
  readonly routerDtype: RouterDtype | null;

  /**
   * @param defaultBalance the kind that `balance: true` stands for, or null where a gate has no balance loss
   * @throws FmoeError `ERR_ARGUMENT` for sizes that do not fit and settings out of range.
   */
  constructor(options: RouterOptions, defaultBalance: BalanceKind | null = 'switch') {
    super(options);
    const owner = new.target.name;
    const balance = options.balance ?? true;
    this.balance =
      typeof balance === 'boolean'
        ? balance
          ? defaultBalance
          : null
        : checkOneOf(owner, 'balance', balance, balanceKinds);
    this.balanceWeight = checkNumber(owner, 'balanceWeight', options.balanceWeight ?? 1);
    this.zLossWeight = checkNumber(owner, 'zLossWeight', options.zLossWeight ?? 0);
    this.capacity = checkCapacity(owner, options.capacity ?? null);
    this.jitter = checkFraction(owner, 'jitter', options.jitter ?? 0);
    this.routerDtype =
      options.routerDtype === undefined
        ? null
        : checkOneOf(owner, 'routerDtype', options.routerDtype, routerDtypes);
  }

  /**
   * @param x tokens `[T, D]`
   * @throws FmoeError `ERR_SHAPE` or `ERR_DTYPE` when `x` is no `[T, D]` of floating-point numbers; `ERR_ARGUMENT` for logits
   * that are NaN or +∞.
   */
  override forward(x: Tensor): Route {
    checkTokens(this.constructor.name, x, this.dModel);
    return withoutAutocast(x, () => {
      this.getLosses(); // those of an earlier pass that nobody collected
      const tokens = this.jittered(x);
      const logits = this.project(tokens);
      if (this.training && this.zLossWeight > 0) {
        const loss = meanOfRanks(zLoss(logits), x.shape[0]!, this.batchGroup);
        this.setLoss(loss.mul(this.zLossWeight), 'z');
      }
      return this.route(logits, tokens);
    });
  }

  /** The logits `[T, N]`, in the router's dtype, of tokens `[T, D]` in any: see `routerLogits`. */
  protected abstract project(tokens: Tensor): Tensor;

  /** Chooses K experts a token: by default those of the largest logits, and their scores are the softmax over the K. */
  protected choose(logits: Tensor, _tokens: Tensor): Choice {
    return topkGate(logits, this.topK);
  }

  /** What the logits become: a choice, limited by the capacity. */
  protected route(logits: Tensor, tokens: Tensor): Route {
    const choice = this.choose(logits, tokens);
    const topIdx = this.limit(choice.topIdx);
    if (!this.training) return { topIdx, topScore: choice.topScore };
    const plan = routePlan(topIdx, this.numExpert);
    const wanted = choice.wanted ?? choice;
    const counts = topIdx === wanted.topIdx ? plan.counts : expertCount(wanted.topIdx, this.numExpert);
    this.afterChoice(this.demand(wanted, logits, counts));
    return { topIdx, topScore: choice.topScore, plan } satisfies TokenRoute;
  }

  /** What {@link afterChoice} goes by. Losses are in float32 at least, wherever the logits were computed. */
  protected demand(choice: Choice, logits: Tensor, counts: Tensor): Demand {
    return { ...choice, counts, probability: this.probability(toRouterDtype(logits, null)) };
  }

  /** What follows from a choice in training mode: the balance loss, and the entropy for the monitor. */
  protected afterChoice(demand: Demand): void {
    this.observeEntropy(demand.probability);
    if (this.balance === null) return;
    this.setLoss(this.balanceLoss(this.balance, demand).mul(this.balanceWeight));
  }

  private balanceLoss(kind: BalanceKind, demand: Demand): Tensor {
    const { topIdx, topScore, probability, counts } = demand;
    const { numExpert, batchGroup } = this;
    if (kind === 'importance') {
      const scores = toRouterDtype(topScore, null);
      return squaredVariation(differentiableSum(importanceOf(topIdx, scores, numExpert), batchGroup));
    }
    const shares = kind === 'switch' ? counts : expertCount(topIdx.narrow(1, 0, 1), numExpert);
    return balanceLoss(meanOverBatch(probability, batchGroup), sumOverBatch(shares, batchGroup));
  }

  /** The distribution over the experts, `[T, N]`, each row adding up to 1: by default the softmax of the logits. */
  protected probability(logits: Tensor): Tensor {
    return logits.softmax(-1);
  }

  /** The slots that an expert takes of a batch; see {@link RouterOptions.capacity}. */
  protected slotsPerExpert(tokens: Tensor, factor: number): Tensor {
    return tokens.mul(factor).mul(this.topK).div(this.numExpert).ceil();
  }

  /** Whether all ranks of the group share an expert's capacity, or each has one of its own. */
  protected get sharesCapacity(): boolean {
    return this.globalBatch;
  }

  private limit(topIdx: Tensor): Tensor {
    const factor = this.capacity[this.training ? 0 : 1];
    if (factor === null) return topIdx;
    const group = this.sharesCapacity ? this.group : null;
    return limitSlots(topIdx, this.numExpert, (tokens) => this.slotsPerExpert(tokens, factor), group);
  }

  private jittered(x: Tensor): Tensor {
    if (!this.training || this.jitter === 0) return x;
    const tokens = toRouterDtype(x, this.routerDtype);
    return tokens.mul(this.drawUniform(tokens).mul(2).sub(1).mul(this.jitter).add(1));
  }

  /** Numbers from U(0, 1) for each token, in the shape `[T, width]`, dtype and place of a tensor. */
  protected drawUniform(like: Tensor, width = like.shape[1]!): Tensor {
    const { dtype, device } = like;
    const draw = (shape: number[]) => rand(shape, { dtype, device });
    return drawRows(draw, [like.shape[0]!, width], device, this.batchGroup);
  }

  /** Numbers from N(0, 1) for each token, in the shape `[T, N]`, dtype and place of a tensor. */
  protected drawNormal(like: Tensor): Tensor {
    const { dtype, device } = like;
    const draw = (shape: number[]) => randn(shape, { dtype, device });
    return drawRows(draw, like.shape as [number, number], device, this.batchGroup);
  }
}

/** A gate whose logits are a linear function of the token. */
export abstract class LinearGate extends RouterGate {
  /** The router's projection: weight `[N, D]`, bias `[N]`. */
  readonly gate: nn.Linear;

  constructor(options: RouterOptions, defaultBalance: BalanceKind | null = 'switch') {
    super(options, defaultBalance);
    const bias = options.gateBias ?? true;
    checkBoolean(new.target.name, 'gateBias', bias);
    this.gate = new nn.Linear(this.dModel, this.numExpert, { bias });
  }

  protected override project(tokens: Tensor): Tensor {
    const { weight, bias } = this.gate;
    return routerLogits(tokens, weight, bias, this.routerDtype);
  }
}
