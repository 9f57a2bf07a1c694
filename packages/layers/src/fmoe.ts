/** Shape letters: T tokens, D model width, E experts, K top-k, R routed rows. */
import type { RoutePlan } from '@fmoe/kernels';
import { checkBoolean, FmoeError, nn, Tensor } from '@fmoe/torch';
import { countOf, type ExpertSources, makeExperts } from './experts/expert-factory.js';
import { ExpertMLP } from './experts/expert-mlp.js';
import { runExperts } from './experts/run-experts.js';
import { MoELayer, type MoEOptions } from './moe-layer.js';
import type { Nest } from './nest.js';
import type { LocalExperts } from './parallel/local-experts.js';

/** Settings of {@link FMoE}: either `expert` or `experts`. */
export interface FMoEOptions extends MoEOptions {
  /**
   * The experts: a module class or a function, called `numExpert` times, or a list of classes, functions and modules, one for
   * each expert. An expert maps `[r, D]` to `[r, D']` for any number of rows, zero included. One whose `forward` names two
   * parameters gets the number of rows as well, `[1]` int64.
   */
  expert?: ExpertSources;
  /**
   * All experts as one module, or a function that makes it, called with the rows `[R, D]` that are grouped by expert and their
   * offsets `[E+1]`. With a `moeGroup` it has the experts of this rank only; the function is told which those are, and
   * `drawExperts` gives them the initial values of one process.
   */
  experts?: nn.Module | ((numExpert: number, dModel: number, local: LocalExperts) => nn.Module);
  /** Use the fused operator where it can be. Default true; see {@link FMoE.fused}. */
  fused?: boolean;
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
export class FMoE<Input extends Nest = Tensor, Output extends Nest = Input> extends MoELayer<Input, Output> {
  static override readonly optionNames: readonly string[] = [
    ...super.optionNames,
    'expert',
    'experts',
    'fused',
  ];

  /** A list with a module for each expert, or one module that computes them all. */
  readonly experts: nn.Module;
  /**
   * Whether experts of the class {@link ExpertMLP} are computed by one operator together with the way there and back, where
   * nothing forces the steps one by one. The numbers are the same. It has first derivatives only: set this to false for
   * second ones.
   */
  fused: boolean;

  /** @throws FmoeError `ERR_ARGUMENT` for wrong sizes, `topK` above the experts, or sources that make no gate or expert. */
  constructor(options: FMoEOptions) {
    const { expert, experts, ...others } = options;
    super({ ...others, ...(countOf(expert) !== undefined && { numExpert: countOf(expert) as number }) });
    const owner = new.target.name;
    if ((expert === undefined) === (experts === undefined)) {
      throw new FmoeError('ERR_ARGUMENT', `${owner}: give either expert or experts.`, {
        op: owner,
        argument: 'expert',
      });
    }
    this.experts = expert
      ? makeExperts(owner, expert, this.numExpert, this.dModel, this.localExperts.ids)
      : checkModule(owner, made(experts, this.localExperts, this.dModel), this.localExperts.ids.length);
    // No other rank has these experts: without a tag their gradients would be averaged with those of others.
    if (this.placement !== null) this.markParallelComm();
    this.fused = options.fused ?? true;
    checkBoolean(owner, 'fused', this.fused);
  }

  override expertFn(rows: Input, offsets: Tensor): Output {
    if (!(this.experts instanceof nn.ModuleList)) {
      const output: unknown = this.experts.call(rows, offsets);
      if (typeof output === 'object' && output !== null) return output as Output;
      throw new FmoeError(
        'ERR_SHAPE',
        `${this.owner}: experts (${this.experts.constructor.name}) returned ${typeof output}, expected a tensor.`,
        { op: this.owner, argument: 'experts' },
      );
    }
    return runExperts(this.owner, this.experts, rows, offsets) as Output;
  }

  /** Whether the experts run as one fused operator, as things stand. */
  get isFused(): boolean {
    return (
      this.fused &&
      this.placement === null &&
      this.expertFn === FMoE.prototype.expertFn &&
      this.experts instanceof ExpertMLP &&
      this.experts.fusedActivation !== null
    );
  }

  protected override throughExperts(x: Input, topScore: Tensor, plan: RoutePlan): Output {
    if (!(x instanceof Tensor && this.isFused)) return super.throughExperts(x, topScore, plan);
    return (this.experts as ExpertMLP).runFused(x, topScore, plan) as Nest as Output;
  }
}

function made(experts: FMoEOptions['experts'], local: LocalExperts, dModel: number): unknown {
  return typeof experts === 'function' ? experts(local.ids.length, dModel, local) : experts;
}

function checkModule(owner: string, experts: unknown, numExpert: number): nn.Module {
  const fail = (problem: string): never => {
    throw new FmoeError('ERR_ARGUMENT', `${owner}: experts ${problem}`, { op: owner, argument: 'experts' });
  };
  if (!(experts instanceof nn.Module)) return fail('must be one nn.Module that computes all experts.');
  if (experts instanceof nn.ModuleList && experts.length !== numExpert) {
    return fail(`is a list of ${experts.length} modules, but numExpert is ${numExpert}.`);
  }
  return experts;
}
