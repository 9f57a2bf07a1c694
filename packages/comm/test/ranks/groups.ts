/** Groups of some ranks, and operations that nobody waits for at first. */
import assert from 'node:assert/strict';
import { setTimeout as delay } from 'node:timers/promises';
import { DeviceMesh, type ProcessGroup } from '../../src/index.js';
import { type Cases, equal, matrix, range, tensorOf, throws, torch } from './cases.js';

export function groups(world: ProcessGroup): Cases {
  const { rank, size } = world;
  const cases: Cases = {};
  const all = range(size, (member) => member);

  cases['a split orders its members by key and keeps groups apart'] = () => {
    const mine = all.filter((member) => member % 2 === rank % 2).reverse();
    const group = world.split(rank % 2, -rank, `half ${rank % 2}`)!;
    assert.deepEqual(group.members, mine);
    assert.equal(group.rank, mine.indexOf(rank));
    assert.equal(group.name, `half ${rank % 2}`);
    equal(group.allReduce_(torch.tensor([rank, 1])), [
      mine.reduce((sum, member) => sum + member, 0),
      mine.length,
    ]);
    equal(
      group.allGather(
        torch.tensor([rank]),
        mine.map(() => 1),
      ),
      mine,
    );
    const inner = group.split(0)!;
    assert.deepEqual(inner.members, mine);
    inner.destroy();
    group.destroy();
    throws('ERR_ARGUMENT', /no process group/, () => group.barrier());
  };

  cases['a rank without a color joins none'] = () => {
    const group = world.split(rank === 0 ? null : 5);
    if (rank === 0) assert.equal(group, null);
    else equal(group!.allReduce_(torch.tensor([1])), [size - 1]);
    throws('ERR_ARGUMENT', /color/, () => world.split(-3));
  };

  cases['a mesh makes the groups of its axes'] = () => {
    if (size !== 4 && size !== 8) return;
    const mesh = new DeviceMesh<ProcessGroup>(world, { expert: 2, data: size / 2 });
    const expert = mesh.group('expert');
    assert.deepEqual(expert.members, [rank - (rank % 2), rank - (rank % 2) + 1]);
    equal(mesh.group('data').allReduce_(torch.tensor([1])), [size / 2]);
    equal(mesh.group('data', 'expert').allReduce_(torch.tensor([1])), [size]);
  };

  cases['operations that are not waited for give the same'] = async () => {
    const rows = all.map(() => 2);
    const reduced = world.startAllReduce_(torch.tensor([rank, 1]));
    const gathered = world.startAllGather(tensorOf(matrix(rank, 2, 2), 2), rows);
    const exchanged = world.startAllToAll(tensorOf(matrix(rank, 2 * size, 1), 1), rows, rows);
    const scattered = world.startReduceScatter(torch.ones([2 * size]), rows);
    const cast = world.startBroadcast_(torch.tensor([rank]), 0);
    const passed = world.startBarrier();
    // Not in the order in which they were begun.
    equal(await cast.promise(), [0]);
    equal(scattered.wait(), [size, size]);
    equal(
      await gathered.promise(),
      all.flatMap((member) => matrix(member, 2, 2)),
    );
    equal(
      exchanged.wait(),
      all.flatMap((member) => matrix(member, 2 * size, 1).slice(2 * rank, 2 * rank + 2)),
    );
    equal(await reduced.promise(), [(size * (size - 1)) / 2, size]);
    equal(reduced.wait(), [(size * (size - 1)) / 2, size]);
    await passed.promise();
    assert.ok(reduced.isDone && passed.isDone);
  };

  cases['the event loop turns while an operation runs'] = async () => {
    if (size === 1) return;
    world.barrier();
    let turns = 0;
    const timer = setInterval(() => turns++, 5);
    // Rank 0 comes 100 ms late.
    if (rank === 0) await delay(100);
    const before = turns;
    equal(await world.startAllReduce_(torch.tensor([1])).promise(), [size]);
    clearInterval(timer);
    // The comparison before it does wait.
    if (rank !== 0 && process.env['FMOE_COMM_DEBUG'] !== '1')
      assert.ok(turns - before >= 3, `${turns - before} turns`);
  };

  cases['an operation ends without anybody looking'] = async () => {
    const work = world.startAllReduce_(torch.tensor([1]));
    for (let i = 0; i < 400 && !work.isDone; i++) await delay(5);
    assert.ok(work.isDone);
    equal(work.wait(), [size]);
  };

  cases['two groups at a time do not get in each other’s way'] = () => {
    const group = world.split(rank % 2)!;
    const first = world.startAllReduce_(torch.tensor([1]));
    const second = group.startAllReduce_(torch.tensor([10]));
    const third = world.startAllReduce_(torch.tensor([100]));
    equal(third.wait(), [100 * size]);
    equal(second.wait(), [10 * group.size]);
    equal(first.wait(), [size]);
  };

  cases['an aborted group refuses all work, others go on'] = () => {
    const group = world.split(0)!;
    group.abort('no longer wanted');
    throws('ERR_COMM', /all_reduce_: the group 'world\/\d+\.0' has failed before: no longer wanted/, () =>
      group.allReduce_(torch.tensor([1])),
    );
    equal(world.allReduce_(torch.tensor([1])), [size]);
  };

  cases['the timeout is a setting'] = () => {
    assert.equal(world.timeout, 60);
    const group = world.split(0)!;
    group.timeout = 2.5;
    assert.equal(group.timeout, 2.5);
    assert.equal(world.timeout, 60);
  };
  return cases;
}
