import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { listMpiruns } from '@fmoe/comm';
import { describeUnless } from '@fmoe/torch/testing';
import { describe, expect, it } from 'vitest';
import { capture } from './capture.js';
import { makeWorkspace } from './workspace.js';

const root = fileURLToPath(new URL('../../../', import.meta.url));
const main = fileURLToPath(new URL('../src/main.ts', import.meta.url));
const { folder, config, run } = makeWorkspace();

function fmoe(...args: string[]) {
  const env = { ...process.env, OMP_NUM_THREADS: '1' };
  return spawnSync(process.execPath, ['--import', 'tsx', main, ...args], {
    cwd: root,
    env,
    encoding: 'utf8',
  });
}

const script = join(folder, 'script.ts');
writeFileSync(
  script,
  `import { readRendezvous } from '@fmoe/comm';
import { tensor } from '@fmoe/torch';
const { rank, worldSize }: { rank: number; worldSize: number } = readRendezvous();
const sum = tensor([rank, worldSize]).sum().item();
console.log(process.argv.slice(2).join(' '), sum);
if (process.argv[2] === '--fail' && rank === 1) throw new TypeError('out of luck');
export {};
`,
);

describe('fmoe launch', () => {
  it('runs a TypeScript script with its arguments and without installed packages on each rank', () => {
    const { status, stdout, stderr } = fmoe(
      'launch',
      '--nproc-per-node',
      '2',
      '--backend',
      'nccl',
      script,
      '--nnodes',
      'x',
    );
    expect(stderr).toBe('');
    expect(stdout.trim().split('\n').sort()).toEqual(['[0] --nnodes x 2', '[1] --nnodes x 3']);
    expect(status).toBe(0);
  });

  it('shows where a rank failed and ends with its exit code', () => {
    const { status, stderr } = fmoe('launch', '-n', '2', '--backend', 'nccl', script, '--fail');
    expect(stderr).toMatch(/\[1\] TypeError: out of luck\n\[1\] +at .*script\.ts:6/);
    expect(stderr).toMatch(/fmoe: ERR_RUNTIME: rank 1 \(process \d+\) ended with exit code 1/);
    expect(status).toBe(1);
  });

  it('runs a command of fmoe on each rank', () => {
    const { status, stderr } = fmoe('launch', '--backend', 'nccl', 'plot', '/no/such/run');
    expect(stderr).toMatch(/^\[0\] fmoe: ERR_FILE: Cannot read \/no\/such\/run/);
    expect(status).toBe(1);
  });

  it.each([
    ['a script that is not there', ['run', '/no/script.ts'], /ERR_FILE: There is no script \/no\/script\.ts/],
    ['no script', ['launch', '-n', '2'], /ERR_ARGUMENT: missing required argument 'script'/],
    ['no ranks', ['launch', '-n', '0', script], /ERR_ARGUMENT: .*Expected an integer of at least 1/],
    ['another backend', ['launch', '--backend', 'gloo', script], /Allowed choices are mpi, nccl/],
    [
      'a machine too many',
      ['launch', '--backend', 'nccl', '--node-rank', '1', script],
      /there is no node 1 among 1/,
    ],
  ])('refuses %s', async (_, args, message) => {
    const { code, error } = await capture(...args);
    expect(error).toMatch(message);
    expect(code).toBe(1);
  });
});

describeUnless(listMpiruns().length === 0 ? 'there is no mpirun' : undefined, 'fmoe launch train', () => {
  it('trains on two ranks, goes on with three, and leaves checkpoints for one', {
    timeout: 240_000,
  }, async () => {
    const train = ['train', '-c', config, '-s', 'training.batchSize=4', '-s', 'training.steps=6'];
    const first = fmoe('launch', '-n', '2', '--backend', 'mpi', ...train);
    expect(first.stderr).toBe('');
    expect(first.stdout).toMatch(/\[0\] step 6\/6 \| loss \d\.\d+/);
    expect(first.stdout).toMatch(/\[0\] test {2}bits per character \d\.\d{3}/);
    expect(first.stdout).not.toContain('[1]');
    expect(first.status).toBe(0);

    const more = ['-s', 'training.steps=9', '--resume'];
    const second = fmoe('launch', '-n', '3', '--backend', 'mpi', ...train, ...more);
    expect(second.stderr).toBe('');
    expect(second.stdout).toMatch(/from step 6 to step 9/);
    expect(second.status).toBe(0);

    // One process reads what three ranks wrote, as it is and merged.
    const evaluated = await capture('eval', run);
    expect(evaluated).toMatchObject({ code: 0, error: '' });
    expect(evaluated.out).toMatch(/at step 9, test: bits per character/);
    const inspected = await capture('checkpoint', 'inspect', run);
    expect(inspected.out).toMatch(/step 9, written by 3 ranks/);
    expect(inspected.out).toMatch(/experts\.htoh4\.weight +F32 +\[16, 16\] for each of 4 experts/);
    const merged = join(folder, 'merged');
    expect(await capture('checkpoint', 'merge', run, merged)).toMatchObject({ code: 0, error: '' });
    expect((await capture('eval', run, '--checkpoint', merged)).out).toBe(evaluated.out);
    const split = join(folder, 'split');
    expect(await capture('checkpoint', 'split', merged, split, '--ranks', '2')).toMatchObject({
      code: 0,
      error: '',
    });
    expect((await capture('eval', run, '--checkpoint', split)).out).toBe(evaluated.out);
    expect(await capture('checkpoint', 'merge', run, merged)).toMatchObject({
      code: 1,
      error: expect.stringMatching(/^fmoe: ERR_FILE: .*is there already/),
    });
  });

  /** Starts a long training on two ranks, and does something to it when it is under way. */
  async function disturb(act: (launcher: ChildProcess, ranks: number[]) => void) {
    const { config, run } = makeWorkspace();
    const args = [
      'launch',
      '-n',
      '2',
      '--backend',
      'mpi',
      'train',
      '-c',
      config,
      '-s',
      'training.steps=1000000',
    ];
    const launcher = spawn(process.execPath, ['--import', 'tsx', main, ...args], {
      cwd: root,
      env: process.env,
    });
    let output = '';
    let begin = 0;
    let ranks: number[] = [];
    const read = (data: Buffer): void => {
      output += data;
      if (begin !== 0 || !/^\[0\] step /m.test(output)) return;
      begin = performance.now();
      ranks = processesWith(config).filter((pid) => pid !== launcher.pid);
      act(launcher, ranks);
    };
    launcher.stdout.on('data', read);
    launcher.stderr.on('data', read);
    const code = await new Promise((resolve) => launcher.on('close', resolve));
    return {
      code,
      output,
      run,
      ranks,
      left: processesWith(config),
      seconds: (performance.now() - begin) / 1000,
    };
  }

  it.each<[string, (launcher: ChildProcess, ranks: number[]) => void]>([
    ['the launcher', (launcher) => launcher.kill('SIGTERM')],
    ['one rank', (_, ranks) => process.kill(ranks[1]!, 'SIGTERM')],
  ])('saves a checkpoint on SIGTERM of %s and stops', { timeout: 120_000 }, async (_, act) => {
    const { code, output, run, left } = await disturb(act);
    expect(output).toMatch(/\[0\] Stopped after step \d+\. Go on with: fmoe train/);
    expect(code).toBe(143);
    const step = /Stopped after step (\d+)/.exec(output)![1]!;
    expect((await capture('checkpoint', 'inspect', run)).out).toContain(`step ${step}, written by 2 ranks`);
    expect(left).toEqual([]);
  });

  it('ends within 10 seconds when a rank is killed, and names it', { timeout: 120_000 }, async () => {
    const { code, output, ranks, left, seconds } = await disturb((_, pids) =>
      process.kill(pids[1]!, 'SIGKILL'),
    );
    expect(output).toMatch(new RegExp(`fmoe: ERR_RUNTIME: rank [01] \\(process ${ranks[1]}\\) was killed`));
    expect(code).toBe(137);
    expect(seconds).toBeLessThan(10);
    expect(left).toEqual([]);
  });
});

/** Node processes that have a text among their arguments; not mpirun, nor what it starts besides. */
function processesWith(text: string): number[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .flatMap((pid) => {
      try {
        const [program, ...args] = readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0');
        return program === process.execPath && args.includes(text) ? [Number(pid)] : [];
      } catch {
        return [];
      }
    });
}
