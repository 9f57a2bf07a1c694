import { GradientReducer, type ProcessGroup } from '@fmoe/comm';
import { FmoeError, nn, type Tensor } from '@fmoe/torch';
import {
  clipGlobalGradNorm_,
  type GlobalNormOptions,
  type ShardedParameters,
} from './clip-global-grad-norm.js';
import { type Communicators, completeCommunicators, noTag, tagOf } from './communicators.js';
import { makeBuckets, type ReduceOptions } from './gradient-buckets.js';
import { gradientGroups } from './gradient-groups.js';
import { syncParameters } from './sync-parameters.js';

/** Settings of {@link DistributedGroupedDataParallel}. */
export interface DataParallelOptions extends ReduceOptions {
  /** Groups by the tags of the parameters. At least `dp` or `world`. */
  groups: Communicators;
  /** Give all ranks the parameters of the first one of each group. Default true. */
  needSync?: boolean;
  /**
   * Combine gradients while backward still computes others, from the second step on. Each group is split then, and its parts
   * carry gradients alone. Default true.
   */
  overlap?: boolean;
  /** Largest bucket of gradients in bytes. Default 25 MiB. */
  bucketBytes?: number;
  /**
   * What gradients mean. `global`, the default: those of the mean of the losses of the `dp` group's ranks, for all parameters
   * alike, so that W ranks train as one with the whole batch. `group`, as FastMoE: the mean over each tag's own group, and nothing
   * for `none`, which leaves the gradients of experts W times as large as those of one process.
   */
  scale?: 'global' | 'group';
  /**
   * What the sum over the group of a tag is divided by, where neither rule fits: with slice groups a gate's gradients are parts
   * of a sum.
   */
  divisors?: Readonly<Record<string, number>>;
  /**
   * Over which ranks the parameters of a tag are spread, rather than copied, for {@link
   * DistributedGroupedDataParallel.clipGradNorm_}. Default `{ none: groups.moe }`.
   */
  shards?: Readonly<Record<string, ProcessGroup>>;
}

/**
 * Keeps the copies of a model's parameters on many ranks the same. Property `dp_comm` of a parameter names the group over which its
 * gradients are combined: `'dp'` (also without the property), `'gate'`, `'moe'`, `'world'`, a name of your own, or `'none'` for
 * what no other rank has. {@link markModuleParallelComm} sets it.
 *
 * Make it when the model is on its device and has its dtype. All ranks must use it alike.
 *
 * @example
 * const parallel = new DistributedGroupedDataParallel(model, { groups: { dp: mesh.group('data', 'expert') } });
 * loss(parallel.call(x)).backward();
 * parallel.allreduceGradients();
 * optimizer.step();
 */
export class DistributedGroupedDataParallel<Model extends nn.Module = nn.Module> extends nn.Module {
  readonly module: Model;
  readonly #reducer: GradientReducer;
  readonly #shards: ReadonlyMap<string, ProcessGroup>;

  /**
   * @throws FmoeError ERR_ARGUMENT without `dp` and `world`, or when a parameter's tag has no group
   */
  constructor(module: Model, options: DataParallelOptions) {
    super();
    const owner = 'DistributedGroupedDataParallel';
    const {
      scale = 'global',
      overlap = true,
      bucketBytes = 25 * 2 ** 20,
      divisors = {},
      noScale = false,
    } = options;
    if (scale !== 'global' && scale !== 'group') {
      throw new FmoeError(
        'ERR_ARGUMENT',
        `${owner}: scale is '${String(scale)}', expected 'global' or 'group'.`,
        {
          op: owner,
          argument: 'scale',
        },
      );
    }
    const groups = completeCommunicators(options.groups);
    this.module = module;
    this.#shards = new Map(Object.entries({ [noTag]: groups.get('moe')!, ...options.shards }));
    const replicas = groups.get('dp')!.size;
    // A group larger than dp has ranks that see the same tokens, whose gradients are all the same.
    const divisorOf = (tag: string, group: ProcessGroup | null): number =>
      divisors[tag] ?? (scale === 'group' ? (group?.size ?? 1) : Math.max(replicas, group?.size ?? 1));
    const learning = [...module.namedParameters()].filter(([, { requiresGrad }]) => requiresGrad);
    const tags = new Set(learning.map(([, parameter]) => tagOf(parameter)));
    const buckets = makeBuckets(learning, overlap ? gradientGroups(groups, tags) : groups, {
      bucketBytes,
      divisorOf: noScale ? () => 1 : divisorOf,
    });
    this.#reducer = new GradientReducer(buckets, {
      divideAfter: options.reduceAfter ?? false,
      widen: options.fp32Allreduce ?? false,
      overlap,
    });
    if (options.needSync ?? true) syncParameters(module.namedParameters(), groups, bucketBytes);
  }

  override forward(...args: Parameters<Model['forward']>): ReturnType<Model['forward']> {
    return this.module.call(...args) as ReturnType<Model['forward']>;
  }

  /**
   * Combines the gradients of all ranks. Call it after the last backward of a step and before the optimizer.
   *
   * @throws FmoeError ERR_COMM when a rank does not answer
   */
  allreduceGradients(): void {
    this.#reducer.finish();
  }

  /** Runs `body`, whose backward only adds up gradients here: for all but the last part of a batch. */
  noSync<Result>(body: () => Result): Result {
    return this.#reducer.pause(body);
  }

  /**
   * Scales the gradients down, in place, so that their norm over all ranks, each parameter counted once wherever it is, is at most
   * `maxNorm`. Call it after {@link allreduceGradients}, on all ranks.
   *
   * @returns the norm before clipping, the same on all ranks
   */
  clipGradNorm_(maxNorm: number, options: GlobalNormOptions = {}): Tensor {
    const classes = new Map<ProcessGroup | null, nn.Parameter[]>();
    for (const parameter of this.module.parameters()) {
      const group = this.#shards.get(tagOf(parameter)) ?? null;
      const own = classes.get(group) ?? [];
      own.push(parameter);
      classes.set(group, own);
    }
    // A rank without a parameter of a class, such as one without experts, takes part as well.
    for (const group of this.#shards.values()) if (!classes.has(group)) classes.set(group, []);
    const order = [null, ...this.#shards.values()];
    const sharded: ShardedParameters[] = [...new Set(order)].map((group) => ({
      parameters: classes.get(group) ?? [],
      group,
    }));
    return clipGlobalGradNorm_(sharded, maxNorm, options);
  }

  /** Takes the hooks off the parameters. The model itself stays. */
  override dispose(): void {
    this.#reducer.dispose();
  }
}
