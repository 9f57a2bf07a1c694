import { type Axis, axes, colorOf, completeShape, coordinatesOf, type MeshShape, meshError } from './axes.js';

/** What a mesh needs of the group of all processes: {@link ProcessGroup} has it. */
export interface World<Group> {
  readonly rank: number;
  readonly size: number;
  /** Makes a group of the ranks that give the same color, ordered by key. Every rank calls it. */
  split(color: number, key: number, name: string): Group | null;
}

/**
 * Arranges the ranks of a run as `pipeline × data × expert × tensor` and makes the groups along the axes.
 *
 * Ranks are numbered along `tensor` first, then `expert`, `data` and `pipeline`, so that neighbours exchange most. All groups
 * are made here, in one order on every rank; making a mesh is therefore an operation of the whole world.
 *
 * @example
 * const mesh = new DeviceMesh(world, { data: 2, expert: 4 });
 * new FMoE({ moeGroup: mesh.group('expert'), … });
 * new DistributedGroupedDataParallel(model, { groups: { dp: mesh.group('data', 'expert') } });
 */
export class DeviceMesh<Group> {
  /** Ranks along each axis. */
  readonly shape: MeshShape;
  /** Where this rank lies on each axis. */
  readonly coordinates: MeshShape;
  readonly rank: number;
  readonly worldSize: number;
  readonly #groups = new Map<string, Group>();

  /**
   * @param sizes ranks along each axis; 1 where left out, except `data`, which then takes what remains
   * @throws FmoeError ERR_ARGUMENT for an unknown axis, a size that is no positive integer, or sizes that do not make up the
   *   world
   */
  constructor(world: World<Group>, sizes: Partial<MeshShape>) {
    this.rank = world.rank;
    this.worldSize = world.size;
    this.shape = completeShape(sizes, world.size);
    this.coordinates = coordinatesOf(world.rank, this.shape);
    for (const along of subsets(axes)) {
      const key = this.#key(along);
      if (this.#groups.has(key)) continue;
      // A color that is not negative always gives a group.
      this.#groups.set(key, world.split(colorOf(world.rank, this.shape, along), world.rank, key || 'alone')!);
    }
  }

  /**
   * The group of the ranks that differ from this one only along the given axes: `group('expert')` are those that share the
   * experts of a layer, `group('data', 'expert')` all that hold the same dense weights. Ordered by rank.
   *
   * @throws FmoeError ERR_ARGUMENT for an unknown axis
   */
  group(...along: Axis[]): Group {
    for (const axis of along) {
      if (!axes.includes(axis))
        throw meshError('along', `there is no axis '${axis}'; the axes are ${axes.join(', ')}`);
    }
    return this.#groups.get(this.#key(along))!;
  }

  /** Coordinates of all ranks, one a line; this rank's line is marked. */
  toString(): string {
    const title = `DeviceMesh ${axes.map((axis) => `${axis} ${this.shape[axis]}`).join(' × ')}`;
    const rows = Array.from({ length: this.worldSize }, (_, rank) => {
      const coordinates = coordinatesOf(rank, this.shape);
      const cells = axes.map((axis) => `${coordinates[axis]}`.padStart(axis.length));
      return `${rank === this.rank ? '>' : ' '}${`${rank}`.padStart(5)}  ${cells.join('  ')}`;
    });
    return [title, `  rank  ${axes.join('  ')}`, ...rows].join('\n');
  }

  [Symbol.for('nodejs.util.inspect.custom')](): string {
    return this.toString();
  }

  /** Axes of size 1 do not change who belongs to a group. */
  #key(along: readonly Axis[]): string {
    return axes.filter((axis) => along.includes(axis) && this.shape[axis] > 1).join('×');
  }
}

/** All selections of a list, each in the list's order. */
function subsets<Item>(list: readonly Item[]): Item[][] {
  return Array.from({ length: 2 ** list.length }, (_, bits) =>
    list.filter((_, index) => bits & (1 << index)),
  );
}
