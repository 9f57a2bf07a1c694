import type { GradientBucket, ProcessGroup } from '@fmoe/comm';
import type { nn } from '@fmoe/torch';
import { groupOf, tagOf } from './communicators.js';

/** How gradients are combined. */
export interface ReduceOptions {
  /** Add gradients up instead of averaging them. Default false. */
  noScale?: boolean;
  /** Divide after adding up, rather than before, which rounds less but may overflow in half precision. Default false. */
  reduceAfter?: boolean;
  /** Add up in float32 what is in half precision. Default false. */
  fp32Allreduce?: boolean;
}

/** Settings of {@link makeBuckets}. */
export interface BucketOptions {
  /** Largest bucket in bytes; a larger parameter has one of its own. */
  bucketBytes: number;
  /** What the sum over a group is divided by. */
  divisorOf: (tag: string, group: ProcessGroup | null) => number;
}

/**
 * Parameters in the order of backward (last ones first), in buckets of one tag, dtype and device. All ranks make the same buckets.
 *
 * @param parameters those that learn, in the order of the model, on their device
 * @throws FmoeError ERR_ARGUMENT for a tag that no group has
 */
export function makeBuckets(
  parameters: Iterable<[string, nn.Parameter]>,
  groups: ReadonlyMap<string, ProcessGroup>,
  { bucketBytes, divisorOf }: BucketOptions,
): GradientBucket[] {
  const open = new Map<string, { bucket: GradientBucket & { parameters: nn.Parameter[] }; bytes: number }>();
  const buckets: GradientBucket[] = [];
  const close = (key: string): void => {
    buckets.push(open.get(key)!.bucket);
    open.delete(key);
  };
  for (const [name, parameter] of [...parameters].reverse()) {
    const tag = tagOf(parameter);
    const group = groupOf(tag, name, groups);
    const key = `${tag} ${parameter.dtype} ${parameter.device}`;
    const bytes = parameter.numel() * bytesOf(parameter.dtype);
    const full = open.get(key);
    if (full !== undefined && full.bytes + bytes > bucketBytes) close(key);
    const room = open.get(key) ?? {
      bucket: { parameters: [], group, divisor: divisorOf(tag, group) },
      bytes: 0,
    };
    room.bucket.parameters.push(parameter);
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
