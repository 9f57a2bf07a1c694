/** Shape letters: T tokens, D model width, E experts, N experts and null experts, K top-k, R routed rows. */
import type { Placement, ProcessGroup } from '@fmoe/comm';
import { combine, dispatch, type RoutePlan } from '@fmoe/kernels';
import { checkFunction, FmoeError, nn, Tensor } from '@fmoe/torch';
import { LoadStatistics } from './balance/load-statistics.js';
import { checkOptionsOf, checkSize, checkTokens, checkTopK } from './check.js';
import { type ExpertSource, makeExpert } from './experts/expert-factory.js';
import type { BaseGate } from './gates/base-gate.js';
import { type GateSource, makeGate } from './gates/gate-factory.js';
import { NaiveGate } from './gates/naive-gate.js';
import { resolveRoute } from './gates/route.js';
import { checkMaskValues, type MaskValues, withMask } from './mask.js';
import { addToOutput, leavesOf, mapNest, type Nest } from './nest.js';
import { splitNullExperts } from './null-experts.js';
import { acrossRanks } from './parallel/across-ranks.js';
import { type LocalExperts, placeExperts } from './parallel/local-experts.js';
import { markModuleParallelComm } from './parallel-comm.js';
import { inSlices } from './slice-group.js';

/** Sees each decision of a gate: the experts `[T, K]` int64, -1 where a slot is dropped, and their scores `[T, K]`. */
export type GateHook = (topIdx: Tensor, topScore: Tensor, gate: BaseGate) => void;

/** What every MoE layer is made from. */
export interface MoEOptions {
  /** Number of experts E. Default 32. */
  numExpert?: number;
  /** Width D of a token. Default 1024. */
  dModel?: number;
  /** Experts per token K. Default 2. */
  topK?: number;
  /** A gate's class, a function that makes one, or a gate. Default {@link NaiveGate}. */
  gate?: GateSource;
  /** Give the router's projection a bias. Default true. */
  gateBias?: boolean;
  /** Called with each decision of the gate. */
  gateHook?: GateHook | null;
  /** Tokens to leave out, see {@link MoELayer.mask}. */
  mask?: Tensor | null;
  /** What they get. Default zeros. */
  maskDict?: MaskValues | null;
  /** Experts beyond E, ids from E on, that a token may choose and that give zeros at no cost. Default 0. */
  numZeroExpert?: number;
  /** Experts after those that give back the token at no cost. Default 0. */
  numIdentityExpert?: number;
  /** An expert that every token goes through, whose output is added unweighted. */
  sharedExpert?: ExpertSource | nn.Module | null;
  /** Ranks that hold the same tokens and share the work on them. */
  sliceGroup?: ProcessGroup | null;
  /** Ranks that hold different experts and different tokens. The gate gets it as well. */
  moeGroup?: ProcessGroup | null;
  /** Which rank of `moeGroup` has which experts. Default: in their order, as many on each rank as it goes. */
  placement?: Placement | null;
}

/**
 * A Mixture-of-Experts layer without experts of its own: the gate chooses K of them for each token, their rows are brought
 * together, and the outputs are added up with the gate's scores.
 *
 * A slot that the gate drops (-1) adds nothing; scores are not rescaled for it. No slot is dropped unless the gate says so.
 *
 * Input and output are tensors, or nests of them: lists and objects of `[T, any width]` with one T. The gate gets the whole
 * nest, so it must be one that takes nests.
 */
export abstract class MoELayer<Input extends Nest = Tensor, Output extends Nest = Input> extends nn.Module {
  /** The options that a class takes; see {@link BaseGate.optionNames}. */
  static readonly optionNames: readonly string[] = [
    'numExpert',
    'dModel',
    'topK',
    'gate',
    'gateBias',
    'gateHook',
    'mask',
    'maskDict',
    'numZeroExpert',
    'numIdentityExpert',
    'sharedExpert',
    'sliceGroup',
    'moeGroup',
    'placement',
  ];
  readonly numExpert: number;
  readonly dModel: number;
  readonly topK: number;
  readonly gate: BaseGate;
  abstract readonly experts: nn.Module;
  /** The expert that every token goes through, or null. */
  readonly shared_experts: nn.Module | null;
  /** Slots per expert, counted in training mode. */
  readonly load: LoadStatistics;
  readonly numZeroExpert: number;
  readonly numIdentityExpert: number;
  gateHook: GateHook | null;
  /**
   * One integer or bool for each token of the next forward passes, or null. Tokens whose mask is not 0 stay out of gate, hook,
   * losses and experts, and get what {@link maskDict} has for their mask, or zeros.
   */
  mask: Tensor | null;
  #maskDict: MaskValues = {};
  readonly sliceGroup: ProcessGroup | null;
  readonly moeGroup: ProcessGroup | null;
  /** Where the experts are; null when all of them are here. */
  readonly placement: Placement | null;
  /** The experts that are here, by their numbers among all. */
  readonly localExperts: LocalExperts;

  /** @throws FmoeError `ERR_ARGUMENT` for sizes that are no positive integers, `topK` above the experts, no gate, or unknown options. */
  constructor(options: MoEOptions) {
    super();
    const owner = new.target.name;
    checkOptionsOf(new.target, options);
    this.numExpert = checkSize(owner, 'numExpert', options.numExpert ?? 32);
    this.numZeroExpert = checkSize(owner, 'numZeroExpert', options.numZeroExpert ?? 0, 0);
    this.numIdentityExpert = checkSize(owner, 'numIdentityExpert', options.numIdentityExpert ?? 0, 0);
    this.dModel = checkSize(owner, 'dModel', options.dModel ?? 1024);
    const numChoices = this.numExpert + this.numZeroExpert + this.numIdentityExpert;
    this.topK = checkTopK(owner, options.topK ?? 2, numChoices);
    this.sliceGroup = options.sliceGroup ?? null;
    this.moeGroup = options.moeGroup ?? null;
    this.placement = placeExperts(owner, this.numExpert, this.moeGroup, options.placement);
    const everywhere = Array.from({ length: this.numExpert }, (_, expert) => expert);
    const ids = this.placement?.expertsOfRank[this.moeGroup!.rank] ?? everywhere;
    this.localExperts = { total: this.numExpert, ids };
    const gateOptions = {
      numExpert: numChoices,
      dModel: this.dModel,
      topK: this.topK,
      gateBias: options.gateBias ?? true,
      ...(this.moeGroup && { group: this.moeGroup }),
      ...(this.placement && { placement: this.placement }),
    };
    this.gate = makeGate(owner, options.gate ?? NaiveGate, gateOptions);
    const { sharedExpert } = options;
    this.shared_experts = sharedExpert
      ? makeExpert(owner, sharedExpert, this.dModel, 0, 'sharedExpert')
      : null;
    this.load = new LoadStatistics(numChoices);
    this.gateHook = options.gateHook ?? null;
    this.mask = options.mask ?? null;
    this.maskDict = options.maskDict ?? {};
  }

  /**
   * What masked tokens get, by the value that {@link mask} has for them; zeros where it says nothing. Set, it is checked.
   *
   * @throws FmoeError `ERR_ARGUMENT` for keys that are no integers other than 0, and values that are no numbers or tensors
   */
  get maskDict(): MaskValues {
    return this.#maskDict;
  }
  set maskDict(values: MaskValues) {
    this.#maskDict = checkMaskValues(this.owner, values);
  }

  /**
   * @param x tokens `[..., D]`, or a nest of tensors `[T, any width]`
   * @returns `[..., D']`, where D' is the width of the experts' outputs; of a nest, what the experts make of it
   * @throws FmoeError `ERR_SHAPE` or `ERR_DTYPE` for tokens of another width or kind, and when gate or expert return
   * something of the wrong shape.
   */
  override forward(x: Input): Output {
    if (!(x instanceof Tensor)) return this.run(checkNest(this.owner, x)) as Output;
    const { shape } = x;
    checkTokens(this.owner, x, this.dModel);
    if (shape.length === 2) return this.run(x) as Output;
    const tokens = shape.slice(0, -1).reduce((a, b) => a * b, 1);
    const output = this.run(x.reshape([tokens, this.dModel]));
    return mapNest(output, (rows) =>
      rows.reshape([...shape.slice(0, -1), rows.shape[1] as number]),
    ) as Output;
  }

  /**
   * All experts, for rows that are grouped by expert. Override it for experts of another kind.
   *
   * @param rows `[R, D]`, or a nest of such tensors; those past the last expert's are padding
   * @param offsets `[E+1]` int64, where each expert's rows begin
   * @returns `[R, D']`, or a nest of such tensors; padding rows may be left out
   */
  abstract expertFn(rows: Input, offsets: Tensor): Output;

  /**
   * The way of the tokens: to the rows of their experts, through them, and back with the scores. Experts that are fused with the
   * way there and back replace it.
   *
   * @param x `[T, D]`, or a nest of such tensors
   * @param topScore `[T, K]`
   * @param plan of the slots over the E experts
   * @returns `[T, D']`, or a nest of such tensors
   */
  protected throughExperts(x: Input, topScore: Tensor, plan: RoutePlan): Output {
    const { placement, moeGroup } = this;
    if (placement !== null) {
      const run = (rows: Nest, offsets: Tensor): Nest => this.expertFn(rows as Input, offsets);
      return acrossRanks(x, topScore, plan, placement, moeGroup!, run) as Output;
    }
    const rows = mapNest(x, (leaf) => dispatch(leaf, plan.rowSlot, plan.slotRow)) as Input;
    const outputs = this.expertFn(rows, plan.offsets);
    return mapNest(outputs, (leaf) => combine(leaf, topScore, plan.slotRow)) as Output;
  }

  /**
   * Tags the parameters with the communicator that synchronises their gradients, as property `dp_comm`: the gate's with
   * `'gate'`, the shared expert's with `'dp'`, the experts' as said.
   *
   * @param expertDpComm default `'none'`: no other rank has these experts
   */
  markParallelComm(expertDpComm = 'none'): void {
    markModuleParallelComm(this.experts, expertDpComm);
    markModuleParallelComm(this.gate, 'gate');
    if (this.shared_experts !== null) markModuleParallelComm(this.shared_experts, 'dp');
  }

  protected get owner(): string {
    return this.constructor.name;
  }

  private run(x: Nest): Nest {
    if (this.mask === null) return this.runSliced(x);
    return withMask(this.owner, this.mask, this.maskDict, x, (kept) => this.runSliced(kept));
  }

  private runSliced(x: Nest): Nest {
    if (this.sliceGroup === null || this.sliceGroup.size === 1) return this.route(x as Input);
    return inSlices(this.sliceGroup, x, (slice) => this.route(slice as Input));
  }

  private route(x: Input): Output {
    // Which nests a gate takes is the gate's affair; the type of its argument says tensor.
    const route = this.gate.call(x as Tensor);
    const tokens = (leavesOf(x)[0] as Tensor).shape[0] as number;
    const { topIdx, topScore, plan } = resolveRoute(route, {
      tokens,
      numExpert: this.gate.numExpert,
      gateName: this.gate.constructor.name,
    });
    this.load.add(plan.counts, tokens * this.topK);
    if (this.gateHook) {
      checkFunction(this.owner, 'gateHook', this.gateHook);
      this.gateHook(topIdx, topScore, this.gate);
    }
    const { numExpert, numZeroExpert, numIdentityExpert } = this;
    const split = splitNullExperts(plan, topScore, numExpert, numZeroExpert, numIdentityExpert);
    let output: Nest = this.throughExperts(x, topScore, split.plan);
    const { identityScore } = split;
    if (identityScore) {
      // Scores may have more precision than tokens.
      const own = mapNest(x, (leaf) => leaf.mul(identityScore).to(leaf.dtype));
      output = addToOutput(this.owner, output, 'identity experts', own);
    }
    if (this.shared_experts) {
      output = addToOutput(this.owner, output, 'the shared expert', this.shared_experts.call(x));
    }
    return output as Output;
  }

  override extraRepr(): string {
    return `num_expert=${this.numExpert}, d_model=${this.dModel}, top_k=${this.topK}`;
  }
}

/** A nest of at least one tensor, all `[T, any width]` of floating-point numbers with one T. */
function checkNest(owner: string, x: Nest): Nest {
  const leaves = leavesOf(x);
  const shapes = leaves.map(({ shape }) => shape);
  const tokens = shapes[0]?.[0];
  if (leaves.length === 0 || shapes.some((shape) => shape.length !== 2 || shape[0] !== tokens)) {
    throw new FmoeError(
      'ERR_SHAPE',
      `${owner}: the tensors of a nested input must be [T, any width] with one T, got ` +
        `${shapes.map((shape) => `[${shape.join(', ')}]`).join(', ') || 'none'}.`,
      { op: owner, argument: 'x', shapes },
    );
  }
  const other = leaves.find(({ dtype }) => !dtype.includes('float'));
  if (other === undefined) return x;
  throw new FmoeError(
    'ERR_DTYPE',
    `${owner}: the input is ${other.dtype}, expected a floating-point tensor.`,
    {
      op: owner,
      argument: 'x',
      dtypes: [other.dtype],
    },
  );
}
