import type { ProcessGroup } from '@fmoe/comm';
import { FmoeError, type nn } from '@fmoe/torch';
import { groupOf, tagOf } from './communicators.js';
import { GradientBucket, type ReduceOptions } from './gradient-bucket.js';

/** Settings of {@link GradientReducer}. */
export interface ReducerOptions extends ReduceOptions {
  /** Largest bucket in bytes; a larger parameter has one of its own. */
  bucketBytes: number;
  /** Begin while backward is still at work. */
  overlap: boolean;
  /** What the sum over a group is divided by. */
  divisorOf: (tag: string, group: ProcessGroup | null) => number;
}

interface Slot {
  bucket: GradientBucket;
  /** Gradients of the bucket that backward has not made yet. */
  missing: Set<nn.Parameter>;
}

/**
 * Combines gradients over the groups of their parameters, bucket by bucket. Buckets start in one order on all ranks, that of
 * backward: a bucket whose gradients are complete waits for those before it.
 */
export class GradientReducer {
  readonly #slots: Slot[];
  readonly #hooks: { remove(): void }[];
  /** The parameter whose gradient is being added up: its hook runs before that. */
  #arriving: { slot: Slot; parameter: nn.Parameter } | undefined;
  #next = 0;
  #paused = 0;

  /**
   * @param parameters in the order of the model, on their device
   * @throws FmoeError ERR_ARGUMENT for a tag that no group has
   */
  constructor(
    parameters: Iterable<[string, nn.Parameter]>,
    groups: ReadonlyMap<string, ProcessGroup>,
    options: ReducerOptions,
  ) {
    this.#slots = makeBuckets(parameters, groups, options).map((bucket) => ({ bucket, missing: new Set() }));
    this.#hooks = options.overlap ? this.#slots.flatMap((slot) => this.#watch(slot)) : [];
    this.#reset();
  }

  /** Runs `body`, whose backward only adds up gradients. */
  pause<Result>(body: () => Result): Result {
    this.#paused++;
    try {
      return body();
    } finally {
      this.#paused--;
    }
  }

  /** Starts what backward has not started, waits, and leaves the combined gradients in the parameters. */
  finish(): void {
    this.#arriving = undefined;
    try {
      for (const { bucket } of this.#slots.slice(this.#next)) bucket.start();
      for (const { bucket } of this.#slots) bucket.finish();
    } finally {
      this.#reset();
    }
  }

  dispose(): void {
    for (const hook of this.#hooks) hook.remove();
  }

  #reset(): void {
    this.#next = 0;
    for (const { bucket, missing } of this.#slots)
      for (const parameter of bucket.parameters) missing.add(parameter);
  }

  #watch(slot: Slot): { remove(): void }[] {
    return slot.bucket.parameters.map((parameter) =>
      parameter.registerHook(() => {
        if (this.#paused > 0) return;
        if (slot.bucket.isStarted) {
          this.#reset();
          throw new FmoeError(
            'ERR_AUTOGRAD',
            'DistributedGroupedDataParallel: backward reached a parameter whose gradient is on its way already. Run all but ' +
              'the last backward of a step inside noSync(), and call allreduceGradients() after the last; a model that ' +
              'uses a parameter again in a nested backward needs overlap: false.',
            { op: 'DistributedGroupedDataParallel' },
          );
        }
        this.#startComplete();
        this.#arriving = { slot, parameter };
      }),
    );
  }

  /** Called when backward goes on to the next parameter: the gradient of the one before is complete. */
  #startComplete(): void {
    this.#arriving?.slot.missing.delete(this.#arriving.parameter);
    for (; this.#slots[this.#next]?.missing.size === 0; this.#next++) this.#slots[this.#next]!.bucket.start();
  }
}

/** The parameters that learn, last ones first, in buckets of one tag, dtype and device. */
function makeBuckets(
  parameters: Iterable<[string, nn.Parameter]>,
  groups: ReadonlyMap<string, ProcessGroup>,
  options: ReducerOptions,
): GradientBucket[] {
  const open = new Map<
    string,
    { tag: string; parameters: nn.Parameter[]; bytes: number; group: ProcessGroup | null }
  >();
  const buckets: GradientBucket[] = [];
  const close = (key: string): void => {
    const { tag, parameters, group } = open.get(key)!;
    open.delete(key);
    buckets.push(new GradientBucket(parameters, group, options.divisorOf(tag, group), options));
  };
  for (const [name, parameter] of [...parameters].reverse()) {
    if (!parameter.requiresGrad) continue;
    const tag = tagOf(parameter);
    const group = groupOf(tag, name, groups);
    const key = `${tag} ${parameter.dtype} ${parameter.device}`;
    const bytes = parameter.numel() * bytesOf(parameter.dtype);
    const bucket = open.get(key);
    if (bucket !== undefined && bucket.bytes + bytes > options.bucketBytes) close(key);
    const room = open.get(key) ?? { tag, parameters: [], bytes: 0, group };
    room.parameters.push(parameter);
    room.bytes += bytes;
    open.set(key, room);
  }
  for (const key of [...open.keys()]) close(key);
  return buckets;
}

/** Bytes of an element, from the bits in its dtype's name. */
function bytesOf(dtype: string): number {
  return Number(/\d+/.exec(dtype)![0]) / 8;
}
