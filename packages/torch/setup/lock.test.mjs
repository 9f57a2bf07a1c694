import { spawn } from 'node:child_process';
import { existsSync, utimesSync, writeFileSync } from 'node:fs';
import { hostname } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { withLock } from './lock.mjs';
import { temporaryFolder } from './testing.mjs';

const quick = { pollMilliseconds: 5 };

describe('withLock', () => {
  it('lets one in at a time and frees the lock after success and failure', async () => {
    const folder = temporaryFolder();
    let inside = 0;
    let most = 0;
    const work = async () => {
      inside += 1;
      most = Math.max(most, inside);
      await new Promise((resolve) => setTimeout(resolve, 10));
      inside -= 1;
      return 'done';
    };
    const results = await Promise.all(Array.from({ length: 6 }, () => withLock(folder, 'a', work, quick)));
    expect(results).toEqual(Array(6).fill('done'));
    expect(most).toBe(1);
    const failing = withLock(folder, 'a', () => Promise.reject(new Error('no')), quick);
    await expect(failing).rejects.toThrow('no');
    expect(existsSync(join(folder, 'a.lock'))).toBe(false);
  });

  it('takes over the lock of a process that was killed', async () => {
    const folder = temporaryFolder();
    const module = new URL('./lock.mjs', import.meta.url).href;
    const script = `import { withLock } from '${module}';
      setInterval(() => {}, 1000);
      await withLock('${folder}', 'b', () => { console.log('held'); return new Promise(() => {}); });`;
    const child = spawn(process.execPath, ['--input-type=module', '-e', script], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    await new Promise((resolve) => child.stdout.once('data', resolve));
    /** @type {(number | undefined)[]} */
    const waitedFor = [];
    const onWait = (/** @type {number | undefined} */ pid) => {
      waitedFor.push(pid);
      child.kill('SIGKILL');
    };
    expect(await withLock(folder, 'b', () => 'mine', { ...quick, onWait })).toBe('mine');
    expect(waitedFor).toEqual([child.pid]);
  });

  it('takes over a lock of another machine once nobody has touched it for long', async () => {
    const folder = temporaryFolder();
    const path = join(folder, 'c.lock');
    writeFileSync(path, JSON.stringify({ pid: process.pid, host: `${hostname()}-other`, start: '0' }));
    let waited = false;
    const onWait = () => {
      waited = true;
      const past = new Date(Date.now() - 10 * 60_000);
      utimesSync(path, past, past);
    };
    expect(await withLock(folder, 'c', () => 7, { ...quick, onWait })).toBe(7);
    expect(waited).toBe(true);
  });
});
