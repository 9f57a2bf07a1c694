import type { ProcessGroup } from '@fmoe/comm';

const made = new WeakMap<ProcessGroup, ProcessGroup>();

/**
 * For each group that gradients travel over one of the same ranks that only gradients use. An exchange of rows in backward must not
 * wait behind gradients, and on a rank that misses a gradient the two come in another order. Made once for a group; all of its
 * members must come here then.
 *
 * @param tags those of parameters that learn, the same on all members of their group
 */
export function gradientGroups(
  groups: ReadonlyMap<string, ProcessGroup>,
  tags: ReadonlySet<string>,
): Map<string, ProcessGroup> {
  return new Map([...groups].map(([tag, group]) => [tag, tags.has(tag) ? gradientGroup(group) : group]));
}

function gradientGroup(group: ProcessGroup): ProcessGroup {
  if (group.size === 1) return group;
  const own = made.get(group) ?? group.split(0, group.rank, `${group.name}/gradients`)!;
  own.timeout = group.timeout;
  made.set(group, own);
  return own;
}
