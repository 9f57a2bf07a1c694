import { spawnSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { capture } from './capture.js';
import { makeWorkspace } from './workspace.js';

const root = fileURLToPath(new URL('../../../', import.meta.url));
const main = fileURLToPath(new URL('../src/main.ts', import.meta.url));
const { folder } = makeWorkspace();

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
