import type { ProcessGroup } from '@fmoe/comm';
import { FmoeError, type nn } from '@fmoe/torch';
import type { TaggedParameter } from '../parallel-comm.js';

/**
 * The groups over which gradients are synchronised, by the tag of the parameters. `dp`, `gate`, `moe` and `world` are those of
 * FastMoE; any other name may be a tag as well. `gate`, `moe` and `world` are the `dp` group where they are left out, and `dp` is
 * `world`.
 */
export type Communicators = Readonly<Record<string, ProcessGroup>> & {
  /** Ranks that hold the same dense weights and see different tokens. */
  readonly dp?: ProcessGroup;
  /** Ranks that share the gates. */
  readonly gate?: ProcessGroup;
  /** Ranks that hold different experts of one layer. */
  readonly moe?: ProcessGroup;
  /** All ranks. */
  readonly world?: ProcessGroup;
};

/** The tag of parameters that no other rank has. */
export const noTag = 'none';

const defaulted = ['dp', 'gate', 'moe', 'world'];
const owner = 'DistributedGroupedDataParallel';

/** All communicators, those with a default completed. */
export function completeCommunicators(groups: Communicators): Map<string, ProcessGroup> {
  const fallback = groups.dp ?? groups.world;
  if (fallback === undefined) {
    throw new FmoeError('ERR_ARGUMENT', `${owner}: groups needs at least dp or world.`, {
      op: owner,
      argument: 'groups',
    });
  }
  const complete = new Map<string, ProcessGroup>(defaulted.map((tag) => [tag, fallback]));
  for (const [tag, group] of Object.entries(groups)) complete.set(tag, group);
  return complete;
}

/** The tag of a parameter, `dp` where it has none. */
export function tagOf(parameter: nn.Parameter): string {
  return (parameter as TaggedParameter).dp_comm ?? 'dp';
}

/**
 * The group of a tag; null for `'none'`.
 *
 * @throws FmoeError ERR_ARGUMENT for a tag that no group has
 */
export function groupOf(
  tag: string,
  name: string,
  groups: ReadonlyMap<string, ProcessGroup>,
): ProcessGroup | null {
  if (tag === noTag) return null;
  const group = groups.get(tag);
  if (group !== undefined) return group;
  throw new FmoeError(
    'ERR_ARGUMENT',
    `${owner}: ${name} is to be synchronised over '${tag}', but groups has only ${[...groups.keys()].join(', ')}. ` +
      `Add a group of that name, or tag it '${noTag}'.`,
    { op: owner, argument: 'groups' },
  );
}
