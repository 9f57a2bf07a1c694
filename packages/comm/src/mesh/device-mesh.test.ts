import { describe, expect, it } from 'vitest';
import type { Axis, MeshShape } from './axes.js';
import { DeviceMesh } from './device-mesh.js';

interface FakeGroup {
  rank: number;
  members: number[];
}

type Split = { color: number; key: number };

/**
 * Makes the mesh on every rank of a world. Groups are filled in once all ranks have split: the n-th split of one rank must be
 * the n-th of all, as it is for real groups.
 */
function meshes(worldSize: number, sizes: Partial<MeshShape>): DeviceMesh<FakeGroup>[] {
  const splits: Split[][] = [];
  const groups: FakeGroup[][] = [];
  const made = Array.from({ length: worldSize }, (_, rank) => {
    splits[rank] = [];
    groups[rank] = [];
    const split = (color: number, key: number): FakeGroup => {
      const group: FakeGroup = { rank: -1, members: [] };
      splits[rank]!.push({ color, key });
      groups[rank]!.push(group);
      return group;
    };
    return new DeviceMesh<FakeGroup>({ rank, size: worldSize, split }, sizes);
  });
  for (const [rank, own] of splits.entries()) {
    expect(own.length).toBe(splits[0]!.length);
    for (const [index, { color }] of own.entries()) {
      const ranks = splits.flatMap((other, member) => (other[index]!.color === color ? [member] : []));
      const members = ranks.sort((a, b) => splits[a]![index]!.key - splits[b]![index]!.key);
      Object.assign(groups[rank]![index]!, { members, rank: members.indexOf(rank) });
    }
  }
  return made;
}

const all: Axis[] = ['pipeline', 'data', 'expert', 'tensor'];

/** Ranks by nested loops, the slowest axis outermost. */
function loop({ pipeline, data, expert, tensor }: MeshShape): MeshShape[] {
  const ranks: MeshShape[] = [];
  for (let p = 0; p < pipeline; p++)
    for (let d = 0; d < data; d++)
      for (let e = 0; e < expert; e++)
        for (let t = 0; t < tensor; t++) ranks.push({ pipeline: p, data: d, expert: e, tensor: t });
  return ranks;
}

describe('DeviceMesh', () => {
  it.each([
    { pipeline: 1, data: 1, expert: 1, tensor: 1 },
    { pipeline: 2, data: 3, expert: 2, tensor: 2 },
    { pipeline: 1, data: 4, expert: 3, tensor: 1 },
    { pipeline: 3, data: 1, expert: 1, tensor: 5 },
  ])('forms the groups that loops over all ranks find: %j', (shape) => {
    const ranks = loop(shape);
    const made = meshes(ranks.length, shape);
    for (const [rank, mesh] of made.entries()) {
      expect(mesh.coordinates).toEqual(ranks[rank]);
      for (let bits = 0; bits < 16; bits++) {
        const along = all.filter((_, index) => bits & (1 << index));
        const fixed = all.filter((axis) => !along.includes(axis));
        const members = ranks.flatMap((other, member) =>
          fixed.every((axis) => other[axis] === ranks[rank]![axis]) ? [member] : [],
        );
        const group = mesh.group(...along);
        expect(group.members).toEqual(members);
        expect(members[group.rank]).toBe(rank);
        expect(mesh.group(...along.reverse())).toBe(group);
      }
    }
  });

  it('splits no more often than there are different groups', () => {
    let splits = 0;
    const split = () => ++splits;
    new DeviceMesh({ rank: 0, size: 8, split }, { data: 2, expert: 4 });
    // Alone, data, expert, and both.
    expect(splits).toBe(4);
  });

  it('gives the remaining ranks to data', () => {
    expect(meshes(12, { expert: 3, tensor: 2 })[0]!.shape).toEqual({
      pipeline: 1,
      data: 2,
      expert: 3,
      tensor: 2,
    });
  });

  it('prints the coordinates of all ranks', () => {
    expect(`${meshes(4, { expert: 2 })[2]}`).toBe(
      [
        'DeviceMesh pipeline 1 × data 2 × expert 2 × tensor 1',
        '  rank  pipeline  data  expert  tensor',
        '     0         0     0       0       0',
        '     1         0     0       1       0',
        '>    2         0     1       0       0',
        '     3         0     1       1       0',
      ].join('\n'),
    );
  });

  const world = { rank: 0, size: 6, split: () => ({}) };
  it.each([
    [{ expert: 4 }, /expert 4 do not divide the 6 ranks/],
    [{ data: 2, expert: 2 }, /data 2 × expert 2 do not make up the 6 ranks/],
    [{ tensor: 0 }, /tensor is 0, expected a positive integer/],
    [{ experts: 2 }, /there is no axis 'experts'; the axes are pipeline, data, expert, tensor/],
  ])('refuses %j', (sizes, message) => {
    expect(() => new DeviceMesh(world, sizes as Partial<MeshShape>)).toThrow(
      expect.objectContaining({ code: 'ERR_ARGUMENT', message: expect.stringMatching(message) }),
    );
  });

  it('refuses groups along an axis that does not exist', () => {
    expect(() => new DeviceMesh(world, {}).group('model' as Axis)).toThrow(
      expect.objectContaining({ code: 'ERR_ARGUMENT' }),
    );
  });
});
