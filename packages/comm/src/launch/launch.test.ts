import { spawn } from 'node:child_process';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { delimiter, dirname, join } from 'node:path';
import { Writable } from 'node:stream';
import { fileURLToPath } from 'node:url';
import { describeUnless } from '@fmoe/torch/testing';
import { afterAll, describe, expect, it } from 'vitest';
import { readRendezvous } from '../rendezvous/index.js';
import { launch } from './launch.js';
import type { LaunchBackend, LaunchOptions } from './launch-plan.js';
import { listMpiruns } from './mpirun.js';

const folder = mkdtempSync(join(tmpdir(), 'fmoe-launch-test-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** A rank: its first argument says what it does, the second which rank does it. */
const script = join(folder, 'rank.mts');
writeFileSync(
  script,
  `import { writeFileSync } from 'node:fs';
import { followLauncher } from ${JSON.stringify(fileURLToPath(new URL('./follow-launcher.ts', import.meta.url)))};
followLauncher();
const { env, argv } = process;
const rank = Number(env.RANK ?? env.OMPI_COMM_WORLD_RANK ?? env.PMI_RANK);
const [action, who, where] = argv.slice(2);
const waitLong = () => setTimeout(() => {}, 60_000);
const mine = rank === Number(who);
if (action === 'show') console.log(JSON.stringify(env));
if (action === 'lines') {
  process.stdout.write('be');
  setTimeout(() => {
    process.stdout.write('gin ' + rank + '\\nmiddle\\n');
    console.error('problem ' + rank);
    process.stdout.write('no newline');
  }, 50);
}
if (action === 'throw') setTimeout(() => { if (mine) throw new Error('out of luck'); waitLong(); }, 100);
if (action === 'die') setTimeout(() => { mine ? process.kill(process.pid, 'SIGKILL') : waitLong(); }, 100);
if (action === 'wait' || action === 'stop') {
  if (action === 'stop') process.on('SIGTERM', () => { console.log('saving'); process.exit(143); });
  writeFileSync(where + '/pid-' + rank, String(process.pid));
  waitLong();
}
`,
);
const root = fileURLToPath(new URL('../../../../', import.meta.url));
const tsx = [process.execPath, '--import', fileURLToPath(import.meta.resolve('tsx', `file://${root}`))];

class Text extends Writable {
  text = '';
  override _write(chunk: Buffer, _: string, done: () => void): void {
    this.text += chunk.toString();
    done();
  }
}

async function run(args: readonly string[], options: Partial<LaunchOptions> = {}) {
  const [out, error] = [new Text(), new Text()];
  const command = [...tsx, script, ...args];
  const begin = performance.now();
  const result = await launch({ command, processes: 2, backend: 'nccl', ...options }, { out, error });
  return { ...result, out: out.text, error: error.text, seconds: (performance.now() - begin) / 1000 };
}

/** A process that ended stays in the table until its parent asks for it. */
const isAlive = (pid: number): boolean => {
  try {
    return !/\) [ZX] /.test(readFileSync(`/proc/${pid}/stat`, 'utf8'));
  } catch {
    return false;
  }
};

/** Folders of launchers, which lie where no other test makes them. */
process.env['TMPDIR'] = folder;
const foldersLeft = (): string[] => readdirSync(tmpdir()).filter((name) => /^fmoe-launch-/.test(name));

async function until(condition: () => boolean, seconds = 20): Promise<void> {
  const end = performance.now() + seconds * 1000;
  while (!condition() && performance.now() < end) await new Promise((resolve) => setTimeout(resolve, 20));
  expect(condition()).toBe(true);
}

const starters = listMpiruns();
const ways: {
  way: string;
  missing?: string;
  options: { backend: LaunchBackend; env?: NodeJS.ProcessEnv };
}[] = [
  { way: 'its own', options: { backend: 'nccl' } },
  ...(['openmpi', 'mpich'] as const).map((family) => {
    const path = starters.find((starter) => starter.family === family)?.path;
    return {
      way: `mpirun of ${family}`,
      ...(path === undefined && { missing: `there is no mpirun of ${family}` }),
      options: { backend: 'mpi' as const, env: { ...process.env, FMOE_MPIRUN: path } },
    };
  }),
];

for (const { way, missing, options } of ways) {
  describeUnless(missing, `launch by ${way}`, () => {
    it('tells each rank who it is, and who it is not', async () => {
      const outer = { ...(options.env ?? process.env), RANK: '7', WORLD_SIZE: '9', PMI_RANK: '3' };
      const { out, exitCode, error } = await run(['show'], { ...options, processes: 3, env: outer });
      expect({ exitCode, error }).toEqual({ exitCode: 0, error: '' });
      const seen = out.trim().split('\n');
      expect(seen.length).toBe(3);
      for (const line of seen) {
        const [, prefix, json] = /^\[(\d)\] (.*)$/.exec(line)!;
        const found = readRendezvous(JSON.parse(json!) as Record<string, string>);
        const rank = Number(prefix);
        expect(found).toMatchObject({
          rank,
          worldSize: 3,
          localRank: rank,
          localWorldSize: 3,
          nodeRank: 0,
        });
        expect(found.masterAddr).toBe('127.0.0.1');
        expect(found.masterPort).toBeGreaterThan(1023);
      }
      expect(new Set(seen.map((line) => line.slice(0, 3))).size).toBe(3);
    });

    it('writes whole lines with their rank, and those of one rank when asked', async () => {
      const all = await run(['lines'], options);
      expect(all.out.split('\n').sort()).toEqual(
        [
          '',
          '[0] begin 0',
          '[0] middle',
          '[0] no newline',
          '[1] begin 1',
          '[1] middle',
          '[1] no newline',
        ].sort(),
      );
      expect(all.error.split('\n').sort()).toEqual(['', '[0] problem 0', '[1] problem 1']);
      const one = await run(['lines'], { ...options, onlyRank: 1 });
      expect(one.out).toBe('[1] begin 1\n[1] middle\n[1] no newline\n');
      expect(one.error).toBe('[1] problem 1\n');
    });

    it('ends all ranks when one throws, and shows its error also where it is hidden', async () => {
      const { exitCode, failed, error, seconds } = await run(['throw', '1'], { ...options, onlyRank: 0 });
      expect(exitCode).toBe(1);
      expect(failed).toMatchObject({ rank: 1, code: 1 });
      expect(error).toMatch(
        /^\[1\] [\s\S]*Error: out of luck[\s\S]*\nfmoe: ERR_RUNTIME: rank 1 \(process \d+\) ended with exit code 1\./,
      );
      expect(error).not.toContain('[0]');
      expect(seconds).toBeLessThan(10);
    });

    it('ends all ranks when one is killed', async () => {
      const { exitCode, failed, error, seconds } = await run(['die', '0'], options);
      expect(exitCode).toBe(137);
      expect(failed).toMatchObject({ rank: 0, code: null });
      expect(error).toMatch(/^fmoe: ERR_RUNTIME: rank 0 \(process \d+\) was killed/);
      expect(seconds).toBeLessThan(10);
    });

    it('passes signals on, and leaves no process and no folder', async () => {
      const where = mkdtempSync(join(folder, 'pids-'));
      const running = run(['stop', '', where], options);
      await until(() => readdirSync(where).length === 2);
      const pids = readdirSync(where).map((name) => Number(readFileSync(join(where, name), 'utf8')));
      process.kill(process.pid, 'SIGTERM');
      const { exitCode, stoppedBy, out } = await running;
      expect({ exitCode, stoppedBy }).toEqual({ exitCode: 143, stoppedBy: 'SIGTERM' });
      expect(out.split('\n').sort()).toEqual(['', '[0] saving', '[1] saving']);
      expect(pids.filter(isAlive)).toEqual([]);
      expect(foldersLeft()).toEqual([]);
    });

    it('does not outlive a launcher that is killed', async () => {
      const where = mkdtempSync(join(folder, 'pids-'));
      const child = join(where, '..', `launcher-${options.backend}.mts`);
      const launchFile = JSON.stringify(fileURLToPath(new URL('./launch.ts', import.meta.url)));
      const command = JSON.stringify([...tsx, script, 'wait', '', where]);
      writeFileSync(
        child,
        `import { launch } from ${launchFile};\nawait launch({ command: ${command}, processes: 2, backend: '${options.backend}' });\n`,
      );
      const [program, ...args] = tsx as [string, ...string[]];
      const launcher = spawn(program, [...args, child], { cwd: root, env: options.env ?? process.env });
      await until(() => existsSync(where) && readdirSync(where).length === 2);
      const pids = readdirSync(where).map((name) => Number(readFileSync(join(where, name), 'utf8')));
      expect(pids.filter(isAlive)).toEqual(pids);
      launcher.kill('SIGKILL');
      await until(() => !pids.some(isAlive), 10);
      expect(foldersLeft()).toEqual([]);
    });
  });
}

describe('launch', () => {
  it('numbers the ranks of a second machine after those of the first', async () => {
    const { out } = await run(['show'], {
      nodes: 3,
      nodeRank: 2,
      masterAddr: '10.0.0.1',
      masterPort: 4000,
    });
    const environments = out
      .trim()
      .split('\n')
      .map((line) => readRendezvous(JSON.parse(line.slice(4)) as Record<string, string>));
    environments.sort((a, b) => a.rank - b.rank);
    expect(environments).toEqual(
      [0, 1].map((localRank) => ({
        rank: 4 + localRank,
        worldSize: 6,
        localRank,
        localWorldSize: 2,
        nodeRank: 2,
        masterAddr: '10.0.0.1',
        masterPort: 4000,
        launcher: 'env',
      })),
    );
  });

  it('says when a program does not start', async () => {
    const [out, error] = [new Text(), new Text()];
    const result = await launch(
      { command: ['/no/such/program'], processes: 1, backend: 'nccl' },
      { out, error },
    );
    expect(result.exitCode).toBe(127);
    expect(error.text).toMatch(/rank 0 ended with exit code 127/);
  });

  it.each([
    [{ processes: 0 }, 'ERR_ARGUMENT', /processes is 0/],
    [{ command: [] }, 'ERR_ARGUMENT', /nothing to start/],
    [{ nodes: 2 }, 'ERR_ARGUMENT', /address of machine 0/],
    [{ nodes: 2, nodeRank: 2 }, 'ERR_ARGUMENT', /no node 2 among 2/],
    [{ onlyRank: 2 }, 'ERR_ARGUMENT', /no rank 2 among 2/],
    [{ backend: 'mpi' as const, nodes: 2 }, 'ERR_ARGUMENT', /address of machine 0/],
    [{ joinTimeout: 0 }, 'ERR_ARGUMENT', /0 s is no time/],
    [
      { backend: 'mpi' as const, env: { PATH: '/nowhere', FMOE_HOME: '/nowhere' } },
      'ERR_SETUP',
      /no mpirun on PATH/,
    ],
    [
      { backend: 'mpi' as const, env: { FMOE_MPIRUN: '/no/mpirun' } },
      'ERR_SETUP',
      /\/no\/mpirun, which is no/,
    ],
    [
      { backend: 'mpi' as const, env: { ...process.env, FMOE_MPIRUN: process.execPath } },
      'ERR_SETUP',
      /neither OpenMPI's mpirun/,
    ],
  ])('refuses %j', async (options, code, message) => {
    await expect(run(['show'], options)).rejects.toEqual(
      expect.objectContaining({ code, message: expect.stringMatching(message) }),
    );
    expect(foldersLeft()).toEqual([]);
  });

  it('prefers the mpirun on PATH to that of set-up', () => {
    const first = starters[0];
    if (first === undefined) return;
    const env = { PATH: ['/nowhere', dirname(first.path)].join(delimiter), FMOE_HOME: '/nowhere' };
    expect(listMpiruns(env)).toEqual([first]);
  });
});
