import type { ProcessGroup } from '@fmoe/comm';
import { cat, type nn, noGrad, tidy } from '@fmoe/torch';
import { groupOf, tagOf } from './communicators.js';

/** Overwrites parameters, frozen ones as well, with those of the first rank of their group. */
export function syncParameters(
  parameters: Iterable<[string, nn.Parameter]>,
  groups: ReadonlyMap<string, ProcessGroup>,
  bucketBytes: number,
): void {
  const lists = new Map<string, { group: ProcessGroup; list: nn.Parameter[] }>();
  for (const [name, parameter] of parameters) {
    const group = groupOf(tagOf(parameter), name, groups);
    if (group === null || group.size === 1) continue;
    const key = `${tagOf(parameter)} ${parameter.dtype} ${parameter.device}`;
    const entry = lists.get(key) ?? { group, list: [] };
    entry.list.push(parameter);
    lists.set(key, entry);
  }
  for (const { group, list } of lists.values()) {
    // Elements are at most 8 bytes: parts of this many stay within the limit.
    for (const part of partsOf(list, bucketBytes / 8)) broadcast(part, group);
  }
}

function partsOf(list: readonly nn.Parameter[], most: number): nn.Parameter[][] {
  const parts: nn.Parameter[][] = [];
  let room = 0;
  for (const parameter of list) {
    if (parameter.numel() > room || parts.length === 0) {
      parts.push([]);
      room = most;
    }
    parts.at(-1)!.push(parameter);
    room -= parameter.numel();
  }
  return parts;
}

function broadcast(parameters: readonly nn.Parameter[], group: ProcessGroup): void {
  tidy(() =>
    noGrad(() => {
      const flat = group.broadcast_(cat(parameters.map((parameter) => parameter.reshape([-1]))), 0);
      let at = 0;
      for (const parameter of parameters) {
        parameter.copy_(flat.narrow(0, at, parameter.numel()).view(parameter.shape));
        at += parameter.numel();
      }
    }),
  );
}
