import { spawn } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, it } from 'vitest';
import { ask, run } from './exec.mjs';
import { findProgram } from './files.mjs';
import { temporaryFolder } from './testing.mjs';

/** @param {number} pid */
function isAlive(pid) {
  const path = `/proc/${pid}/stat`;
  return existsSync(path) && !/\) Z /.test(readFileSync(path, 'utf8'));
}

describe('run', () => {
  it('keeps the output, and shows it when the command fails', async () => {
    expect(await run('sh', ['-c', 'echo out; echo err >&2'])).toContain('out');
    const failing = run('sh', ['-c', 'echo reason >&2; exit 3']);
    await expect(failing).rejects.toThrow(/sh -c .* failed with exit code 3\.\n {2}\| reason/);
    await expect(run('sh', ['-c', 'kill -9 $$'])).rejects.toThrow('was ended by SIGKILL');
  });

  it('listens to signals only while a command runs', async () => {
    const count = () => process.listenerCount('SIGINT') + process.listenerCount('SIGTERM');
    const before = count();
    const running = [run('sleep', ['0.1']), run('sleep', ['0.2'])];
    expect(count()).toBe(before + 2);
    await Promise.all(running);
    expect(count()).toBe(before);
  });

  it('names a program that does not exist', async () => {
    await expect(run('no-such-program', [])).rejects.toMatchObject({ code: 'ERR_SETUP' });
    await expect(run('no-such-program', [])).rejects.toThrow('no-such-program');
    expect(ask('no-such-program', [])).toBeUndefined();
  });

  it.for(['SIGTERM', 'SIGINT', 'SIGKILL'])(
    'ends its command when it is itself ended by %s',
    async (signal, context) => {
      if (signal === 'SIGKILL' && !findProgram('setpriv'))
        context.skip('setpriv (util-linux) is not installed');
      const folder = temporaryFolder();
      const pidFile = join(folder, 'pid');
      const module = new URL('./exec.mjs', import.meta.url).href;
      const script = `import { run } from '${module}'; await run('sh', ['-c', 'echo $$ > ${pidFile}; exec sleep 60']);`;
      const parent = spawn(process.execPath, ['--input-type=module', '-e', script], { stdio: 'ignore' });
      const ended = new Promise((resolve) => parent.once('close', (code) => resolve(code)));
      while (!existsSync(pidFile) || readFileSync(pidFile, 'utf8') === '') await sleep(10);
      const pid = Number(readFileSync(pidFile, 'utf8'));
      expect(isAlive(pid)).toBe(true);
      parent.kill(/** @type {NodeJS.Signals} */ (signal));
      const code = await ended;
      expect(code).toBe({ SIGTERM: 143, SIGINT: 130, SIGKILL: null }[signal]);
      for (let wait = 0; wait < 200 && isAlive(pid); wait += 1) await sleep(10);
      expect(isAlive(pid)).toBe(false);
    },
  );
});
