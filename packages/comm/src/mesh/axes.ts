/** Shape letters: W world size. */
import { FmoeError } from '@fmoe/torch';

/** The axes of a mesh, the slowest first: neighbouring ranks differ in `tensor`, which exchanges most. */
export const axes = ['pipeline', 'data', 'expert', 'tensor'] as const;
export type Axis = (typeof axes)[number];

/** Ranks along each axis. */
export type MeshShape = Readonly<Record<Axis, number>>;

/**
 * Completes the sizes of a mesh: axes that are left out have size 1, except `data`, which then takes what remains.
 *
 * @throws FmoeError ERR_ARGUMENT for an unknown axis, a size that is no positive integer, or sizes whose product is not W
 */
export function completeShape(sizes: Partial<MeshShape>, worldSize: number): MeshShape {
  for (const [axis, size] of Object.entries(sizes)) {
    if (!(axes as readonly string[]).includes(axis)) {
      throw meshError(axis, `there is no axis '${axis}'; the axes are ${axes.join(', ')}`);
    }
    if (size === undefined || (Number.isSafeInteger(size) && size >= 1)) continue;
    throw meshError(axis, `${axis} is ${String(size)}, expected a positive integer`);
  }
  const { pipeline = 1, expert = 1, tensor = 1 } = sizes;
  const others = pipeline * expert * tensor;
  const data = sizes.data ?? worldSize / others;
  if (Number.isInteger(data) && others * data === worldSize) return { pipeline, data, expert, tensor };
  const wanted = axes.flatMap((axis) => (sizes[axis] === undefined ? [] : [`${axis} ${sizes[axis]}`]));
  const fault = sizes.data === undefined ? 'do not divide' : 'do not make up';
  throw meshError('sizes', `${wanted.join(' × ')} ${fault} the ${worldSize} ranks of the world`);
}

/** Where a rank lies on each axis. */
export function coordinatesOf(rank: number, shape: MeshShape): MeshShape {
  let rest = rank;
  const along = [...axes].reverse().map((axis) => {
    const coordinate = rest % shape[axis];
    rest = Math.floor(rest / shape[axis]);
    return [axis, coordinate] as const;
  });
  return Object.fromEntries(along) as unknown as MeshShape;
}

/**
 * The number of the group that a rank belongs to when ranks that differ only along `along` form groups. Equal numbers, equal
 * groups; the lowest rank's coordinates come first.
 */
export function colorOf(rank: number, shape: MeshShape, along: readonly Axis[]): number {
  const coordinates = coordinatesOf(rank, shape);
  return axes.reduce(
    (color, axis) => (along.includes(axis) ? color : color * shape[axis] + coordinates[axis]),
    0,
  );
}

export function meshError(argument: string, problem: string): FmoeError {
  return new FmoeError('ERR_ARGUMENT', `DeviceMesh: ${problem}.`, { op: 'DeviceMesh', argument });
}
