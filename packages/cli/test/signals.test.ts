import { spawn, spawnSync } from 'node:child_process';
import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { makeWorkspace } from './workspace.js';

const root = fileURLToPath(new URL('../../../', import.meta.url));
const main = fileURLToPath(new URL('../src/main.ts', import.meta.url));
const node = ['--import', 'tsx', main];
const env = { ...process.env, OMP_NUM_THREADS: '1' };

describe.each([
  ['SIGINT', 130],
  ['SIGTERM', 143],
] as const)('fmoe train and %s', { timeout: 240_000 }, (signal, exitCode) => {
  it('saves a checkpoint, stops, and can be resumed', async () => {
    const { config, run } = makeWorkspace();
    const args = ['train', '-c', config, '-s', 'training.steps=100000'];
    const child = spawn(process.execPath, [...node, ...args], { cwd: root, env });
    let output = '';
    child.stderr.on('data', (data) => {
      output += data;
    });
    child.stdout.on('data', (data: Buffer) => {
      // The first line of progress: training is under way.
      if (/^step /m.test(`${data}`) && !/Stopping/.test(output)) child.kill(signal);
      output += data;
    });
    const code = await new Promise((resolve) => child.on('close', resolve));
    expect(output).toMatch(/Stopping: saving a checkpoint/);
    expect(output).toMatch(
      /Stopped after step \d+\. Go on with: fmoe train --config .* --set training.steps=100000 --resume/,
    );
    expect(code).toBe(exitCode);
    const step = Number(/Stopped after step (\d+)/.exec(output)![1]);
    expect(step).toBeGreaterThan(0);
    expect(existsSync(join(run, `checkpoints/step-${`${step}`.padStart(8, '0')}/state.json`))).toBe(true);
    expect(readdirSync(join(run, 'checkpoints')).filter((name) => name.startsWith('.'))).toEqual([]);

    const steps = `training.steps=${step + 5}`;
    const again = spawnSync(process.execPath, [...node, 'train', '-c', config, '-s', steps, '--resume'], {
      cwd: root,
      env,
      encoding: 'utf8',
    });
    expect(again.stderr).toBe('');
    expect(again.stdout).toContain(`from step ${step} to step ${step + 5}`);
    expect(again.status).toBe(0);
  });
});

describe('FMOE_DEBUG', () => {
  it('shows where an error came from', () => {
    const run = (debug: string) =>
      spawnSync(process.execPath, [...node, 'plot', '/no/such/run'], {
        cwd: root,
        env: { ...env, FMOE_DEBUG: debug },
        encoding: 'utf8',
      }).stderr;
    expect(run('0')).toMatch(/^fmoe: ERR_FILE: [^\n]*\n$/);
    expect(run('1')).toMatch(
      /^fmoe: ERR_FILE: [^\n]*\n[\s\S]*\n\s+at .*readMetrics[\s\S]*caused by: [\s\S]*ENOENT/,
    );
  });
});
