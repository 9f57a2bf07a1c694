/** Shape letters: T tokens, D model width, N all experts, K top-k. */
import type { Placement, ProcessGroup } from '@fmoe/comm';
import { checkBoolean, nn, noGrad, type Tensor, tidy, zeros } from '@fmoe/torch';
import { checkOptionsOf, checkSize, checkTopK } from '../check.js';
import type { Route } from './route.js';

export type { Route } from './route.js';

/** What a gate needs of a group of ranks. */
export type GateGroup = Pick<ProcessGroup, 'rank' | 'size' | 'members' | 'allReduce_' | 'allGather'>;

/** What a gate is made from. */
export interface GateOptions {
  /** Width D of a token. */
  dModel: number;
  /** Number of all experts N, those of other ranks included. */
  numExpert: number;
  /** Experts per token K. Default 2. */
  topK?: number;
  /** Give the router's projection a bias. Default true. */
  gateBias?: boolean;
  /** The ranks whose tokens share the experts, for limits and loads that count all of them. Default: this process alone. */
  group?: GateGroup;
  /**
   * Where the experts are among the ranks of the group, for gates that go by it. Experts from its number on, up to N, cost nothing
   * and are on every rank. Default: all N in their order, as many on each rank as it goes (`Placement.even`).
   */
  placement?: Placement;
  /**
   * Take the tokens of all ranks of the group for one batch, in rank order: limits, balance losses and random draws are then
   * those of one process with all the tokens. Otherwise each rank's tokens are a batch of their own, unless a gate says
   * that its limit spans ranks. Default false.
   */
  globalBatch?: boolean;
}

/** Entropies are kept as whole numbers of this many parts of a nat, which a change of the module's dtype leaves alone. */
const partsOfNat = 2 ** 20;

/**
 * A router: `forward` maps tokens `[T, D]` to a {@link Route}.
 *
 * A gate may leave balance losses with {@link setLoss}; `collectBalanceLoss(model)` gathers those of a whole model. Any
 * subclass works in `FMoE`, from any package.
 */
export abstract class BaseGate extends nn.Module {
  /**
   * The options that a class takes. A subclass that declares its own, `[...super.optionNames, 'planes']`, has all others
   * refused; one that declares none is not checked.
   */
  static readonly optionNames: readonly string[] = [
    'dModel',
    'numExpert',
    'topK',
    'gateBias',
    'group',
    'placement',
    'globalBatch',
  ];
  readonly dModel: number;
  readonly numExpert: number;
  readonly topK: number;
  /** The ranks that share the experts, or null for this process alone. */
  readonly group: GateGroup | null;
  readonly globalBatch: boolean;
  /** `[2]` int64: the sum of {@link observeEntropy}'s means in parts of a nat, and how many there were. */
  declare readonly routerEntropy: Tensor;
  readonly #losses = new Map<string, Tensor>();

  /** @throws FmoeError `ERR_ARGUMENT` for sizes that are no positive integers, `topK > numExpert`, and unknown options. */
  constructor(options: GateOptions) {
    super();
    const owner = new.target.name;
    checkOptionsOf(new.target, options);
    this.dModel = checkSize(owner, 'dModel', options.dModel);
    this.numExpert = checkSize(owner, 'numExpert', options.numExpert);
    this.topK = checkTopK(owner, options.topK ?? 2, this.numExpert);
    this.group = options.group && options.group.size > 1 ? options.group : null;
    this.globalBatch = options.globalBatch ?? false;
    checkBoolean(owner, 'globalBatch', this.globalBatch);
    this.registerBuffer('routerEntropy', zeros([2], { dtype: 'int64' }), { persistent: false });
  }

  /** @param x tokens `[T, D]` */
  abstract override forward(x: Tensor): Route;

  /** The ranks whose tokens form one batch with this rank's, or null when its own are all. */
  protected get batchGroup(): GateGroup | null {
    return this.globalBatch ? this.group : null;
  }

  /**
   * Leaves a loss of this forward pass, a scalar in the autograd graph. It stays in the scope of the step: when that scope
   * closes, the loss is gone. Losses of different names add up; null takes back that of a name.
   */
  setLoss(loss: Tensor | null, name = 'balance'): void {
    if (loss === null) this.#losses.delete(name);
    else this.#losses.set(name, loss);
  }

  /** Whether the last forward pass left a loss that is still alive. */
  get hasLoss(): boolean {
    return this.getLosses(false).size > 0;
  }

  /** The losses by name, each with its weight in {@link getLoss}. By default the gate forgets them. */
  getLosses(clear = true): Map<string, Tensor> {
    const alive = new Map([...this.#losses].filter(([, loss]) => !loss.isDisposed));
    if (clear) this.#losses.clear();
    return alive;
  }

  /** The sum of the losses, or null. By default the gate forgets them, so that they are not counted twice. */
  getLoss(clear = true): Tensor | null {
    const losses = [...this.getLosses(clear).values()];
    return losses.length === 0 ? null : losses.reduce((sum, loss) => sum.add(loss));
  }

  /**
   * Counts the mean entropy of the tokens' distributions over the experts, for `readBalance()`: ln N for a router that
   * cannot decide, 0 for one that is sure. Nothing is read from the device.
   *
   * @param probability `[T, N]`, each row adding up to 1
   */
  protected observeEntropy(probability: Tensor): void {
    const tokens = probability.shape[0]!;
    if (tokens === 0) return;
    noGrad(() =>
      tidy(() => {
        const parts = probability
          .specialEntr()
          .sum()
          .mul(partsOfNat / tokens)
          .round()
          .to('int64');
        this.routerEntropy.narrow(0, 0, 1).add_(parts);
        this.routerEntropy.narrow(0, 1, 1).add_(1);
      }),
    );
  }

  /** The mean entropy in nats since the last reset, or null when none was observed. On a GPU this waits for the device. */
  readEntropy(options: { reset?: boolean } = {}): number | null {
    const [sum, times] = tidy(() => Array.from(this.routerEntropy.cpu().data() as BigInt64Array, Number)) as [
      number,
      number,
    ];
    if (options.reset) this.routerEntropy.zero_();
    return times === 0 ? null : sum / partsOfNat / times;
  }

  override extraRepr(): string {
    return `d_model=${this.dModel}, num_expert=${this.numExpert}, top_k=${this.topK}`;
  }
}
