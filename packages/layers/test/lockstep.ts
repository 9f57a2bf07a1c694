/** Shape letters: W members of a group. */
import type { ProcessGroup, ReduceOp, Work } from '@fmoe/comm';
import { cat, keep, stack, type Tensor } from '@fmoe/torch';

interface Operation {
  name: string;
  /** What each member brings, by its rank in the group. */
  brought: Map<number, { tensor?: Tensor; numbers?: readonly number[] }>;
}

/** Thrown at an operation whose other members have not come yet; the program of the rank is run again later. */
class Suspended extends Error {}

/**
 * Runs a program once for each of W ranks, in this process. A rank that has to wait for others is broken off and run again from the
 * start when they have come, with the results that it saw before: programs must do the same each time.
 *
 * Ranks that do not call the same operations, with tensors that fit, are an error.
 */
export function runRanks<Result>(
  size: number,
  program: (world: ProcessGroup, rank: number) => Result,
): Result[] {
  const journal = new Map<string, Operation[]>();
  const results = new Map<number, Result>();
  const members = Array.from({ length: size }, (_, rank) => rank);
  while (results.size < size) {
    const before = [...journal.values()]
      .flat()
      .reduce((sum, { brought }) => sum + brought.size, results.size);
    for (const rank of members) {
      if (results.has(rank)) continue;
      const clock = { suspended: false };
      try {
        results.set(
          rank,
          program(new LockstepGroup('world', rank, members, journal, clock) as unknown as ProcessGroup, rank),
        );
      } catch (error) {
        if (!clock.suspended) throw error;
      }
    }
    const after = [...journal.values()].flat().reduce((sum, { brought }) => sum + brought.size, results.size);
    if (after === before) throw new Error(`Ranks wait for ever; ended are ${[...results.keys()].join(', ')}`);
  }
  return members.map((rank) => results.get(rank)!);
}

/** The operations of a process group that the layers call, for {@link runRanks}. */
class LockstepGroup {
  #sequence = 0;
  readonly size: number;
  readonly rank: number;

  constructor(
    readonly name: string,
    worldRank: number,
    readonly members: readonly number[],
    private readonly journal: Map<string, Operation[]>,
    private readonly clock: { suspended: boolean },
  ) {
    this.size = members.length;
    this.rank = members.indexOf(worldRank);
  }

  /** Begins operation number n; the function that it returns gives what all members brought, in rank order. */
  #begin(name: string, own: { tensor?: Tensor; numbers?: readonly number[] }) {
    const operations = this.journal.get(this.name) ?? [];
    this.journal.set(this.name, operations);
    const number = this.#sequence++;
    operations[number] ??= { name, brought: new Map() };
    const operation = operations[number];
    if (operation.name !== name)
      throw new Error(`${this.name}: rank ${this.rank} calls ${name}, others ${operation.name}`);
    if (!operation.brought.has(this.rank)) {
      const tensor = own.tensor && keep(own.tensor.detach().clone());
      operation.brought.set(this.rank, { ...own, ...(tensor && { tensor }) });
    }
    return () => {
      if (operation.brought.size < this.size) {
        this.clock.suspended = true;
        throw new Suspended();
      }
      return this.members.map((_, rank) => operation.brought.get(rank)!);
    };
  }

  startAllReduce_(tensor: Tensor, op: ReduceOp = 'sum'): Work<Tensor> {
    const all = this.#begin(`allReduce ${op} ${tensor.dtype} [${tensor.shape}]`, { tensor });
    const wait = (): Tensor => {
      const stacked = stack(all().map(({ tensor }) => tensor!));
      const combined =
        op === 'sum'
          ? stacked.sum([0])
          : op === 'mean'
            ? stacked.mean([0])
            : op === 'max'
              ? stacked.amax([0])
              : stacked.amin([0]);
      return tensor.copy_(combined);
    };
    return { isDone: false, wait, promise: async () => wait() };
  }

  allReduce_(tensor: Tensor, op?: ReduceOp): Tensor {
    return this.startAllReduce_(tensor, op).wait();
  }

  broadcast_(tensor: Tensor, root: number): Tensor {
    return tensor.copy_(
      this.#begin(`broadcast ${root} ${tensor.dtype} [${tensor.shape}]`, { tensor })()[root]!.tensor!,
    );
  }

  allGather(tensor: Tensor, rowsOfRank: readonly number[]): Tensor {
    if (rowsOfRank.length !== this.size || rowsOfRank[this.rank] !== tensor.shape[0])
      throw new Error(`${this.name}: rank ${this.rank} gathers [${tensor.shape}] as rows ${rowsOfRank}`);
    return cat(this.#begin(`allGather ${rowsOfRank}`, { tensor })().map(({ tensor }) => tensor!));
  }

  split(color: number, key = 0): LockstepGroup {
    const all = this.#begin('split', { numbers: [color, key] })().map(({ numbers }) => numbers!);
    const same = this.members.flatMap((member, rank) =>
      all[rank]![0] === color ? [{ member, key: all[rank]![1]! }] : [],
    );
    const members = same.sort((a, b) => a.key - b.key).map(({ member }) => member);
    const name = `${this.name}/${this.#sequence}:${color}`;
    return new LockstepGroup(name, this.members[this.rank]!, members, this.journal, this.clock);
  }
}
