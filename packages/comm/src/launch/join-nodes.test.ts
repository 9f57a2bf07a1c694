import { connect } from 'node:net';
import { describe, expect, it } from 'vitest';
import { joinNodes } from './join-nodes.js';
import { freePort } from './launch-plan.js';

const base = { nodes: 2, processes: 2, mpi: 'openmpi 5.0.11' };

/** Lets machines join, each after the one before; what each got. */
async function join(machines: Partial<typeof base & { node: number; host: string }>[], seconds = 3) {
  const point = { host: '127.0.0.1', port: await freePort(), seconds };
  return Promise.allSettled(
    machines.map(async (machine, node) => {
      await new Promise((resolve) => setTimeout(resolve, 100 * node));
      return joinNodes({ ...base, node, host: `host-${node}`, ...machine }, point);
    }),
  );
}

describe('launchers of several machines', () => {
  it('meet, whoever comes first, and hear of failures, signals and the end', async () => {
    const point = { host: '127.0.0.1', port: await freePort(), seconds: 5 };
    const late = joinNodes({ ...base, nodes: 3, node: 2, host: 'c' }, point);
    await new Promise((resolve) => setTimeout(resolve, 100));
    const all = await Promise.all([
      joinNodes({ ...base, nodes: 3, node: 0, host: 'a' }, point),
      joinNodes({ ...base, nodes: 3, node: 1, host: 'b' }, point),
      late,
    ]);
    const heard: string[] = [];
    const failed = all.map(
      (nodes) =>
        new Promise<void>((resolve) => {
          nodes.follow({
            onFailed: ({ rank }) => {
              heard.push(`machine ${nodes.node}: rank ${rank} failed`);
              resolve();
            },
            onSignal: (name) => heard.push(`${name}`),
            onProblem: (problem) => heard.push(problem),
          });
        }),
    );
    const ended = all[0]!.runDaemon(1, ['--an', 'argument']);
    expect(await all[1]!.daemonArguments()).toEqual(['--an', 'argument']);
    all[2]!.report({ rank: 5, code: 1 });
    await Promise.all(failed);
    // The first one stays.
    all[1]!.report({ rank: 2, code: 1 });
    const [, ...others] = all.map((nodes) => nodes.conclude(undefined, true));
    await Promise.all([ended, ...others]);
    expect(heard.sort().slice(0, 3)).toEqual([0, 1, 2].map((node) => `machine ${node}: rank 5 failed`));
  });

  it('are told why they do not go together, on both sides', async () => {
    for (const [machine, message] of [
      [{ nodes: 3 }, /machine 1 was started for 3 machines, machine 0 for 2/],
      [{ processes: 4 }, /machine 1 has 4 ranks and machine 0 has 2/],
      [{ mpi: 'mpich 4.1' }, /machine 1 has mpich 4.1 and machine 0 has openmpi 5.0.11/],
      [{ host: 'host-0' }, /machines 0 and 1 have the same host name, host-0/],
    ] as const) {
      for (const end of await join([{}, machine])) {
        expect(end).toMatchObject({
          status: 'rejected',
          reason: { code: 'ERR_CONFIG', message: expect.stringMatching(message) },
        });
      }
    }
  });

  it('refuse a second one of the same number', async () => {
    const ends = await join([{ nodes: 3 }, { nodes: 3, node: 1 }, { nodes: 3, node: 1 }]);
    expect(ends[0]).toMatchObject({
      reason: {
        code: 'ERR_CONFIG',
        message: expect.stringMatching(/two launchers were started as machine 1/),
      },
    });
  });

  it('name the machine that does not come, in time', async () => {
    const begin = performance.now();
    const ends = await join([{ nodes: 3 }, { nodes: 3 }], 1);
    expect(ends[0]).toMatchObject({
      reason: {
        code: 'ERR_COMM',
        message: expect.stringMatching(/no launcher of machine 2 came .* within 1 s/),
      },
    });
    expect(ends[1]).toMatchObject({ reason: { code: 'ERR_COMM' } });
    const [alone] = await join([{ node: 1 }], 1);
    expect(alone).toMatchObject({
      reason: {
        code: 'ERR_COMM',
        message: expect.stringMatching(/machine 0 at 127.0.0.1:\d+ within 1 s: .*ECONNREFUSED/),
      },
    });
    expect(performance.now() - begin).toBeLessThan(5000);
  });

  it('do not mind strangers, and say when the port is taken', async () => {
    const point = { host: '127.0.0.1', port: await freePort(), seconds: 3 };
    const gathering = joinNodes({ ...base, node: 0, host: 'a' }, point);
    await new Promise<void>((resolve) => {
      const stranger = connect(point.port, '127.0.0.1', () => stranger.write('GET / HTTP/1.1\n'));
      stranger.on('error', () => {}).on('close', () => resolve());
    });
    await expect(joinNodes({ ...base, node: 0 }, point)).rejects.toMatchObject({
      code: 'ERR_COMM',
      message: expect.stringMatching(/port \d+: it is taken/),
    });
    const other = await joinNodes({ ...base, node: 1, host: 'b' }, point);
    const end = other.conclude(undefined, true);
    await (await gathering).conclude(undefined, true);
    await end;
  });
});
