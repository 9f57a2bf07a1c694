import { randomBytes } from 'node:crypto';
import {
  linkSync,
  mkdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { hostname } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { onInterrupt } from './exec.mjs';
import { readTextIfAny } from './files.mjs';

/** A holder touches its lock this often, milliseconds. */
const HEARTBEAT = 10_000;
/** A lock that was not touched for so long has lost its holder, milliseconds. */
const ABANDONED = 120_000;

/**
 * When a process began, in clock ticks since boot: tells it from a later one with the same number.
 *
 * @param {number} pid
 * @returns {string | undefined} nothing when there is no such process
 */
function processStart(pid) {
  const stat = readTextIfAny(`/proc/${pid}/stat`);
  // The program's name stands in parentheses and may itself hold spaces. After it: the state and, 19 on, the start.
  const fields = stat?.slice(stat.lastIndexOf(')') + 2).split(' ');
  // A process that has ended but was not yet waited for is gone as well.
  return fields?.[0] === 'Z' || fields?.[0] === 'X' ? undefined : fields?.[19];
}

/**
 * @param {string} path
 * @returns {{ text: string, pid: number | undefined, stale: boolean } | undefined} nothing when there is no lock
 */
function readLock(path) {
  const stat = statSync(path, { throwIfNoEntry: false });
  const text = readTextIfAny(path);
  if (!stat || text === undefined) return undefined;
  const age = Date.now() - stat.mtimeMs;
  /** @type {{ pid?: number, host?: string, start?: string }} */
  let holder = {};
  try {
    holder = JSON.parse(text);
  } catch {
    // Not ours or damaged: only its age can tell.
  }
  const { pid } = holder;
  const here = holder.host === hostname() && pid !== undefined;
  const dead = here && processStart(pid) !== holder.start;
  return { text, pid, stale: dead || age > ABANDONED };
}

/**
 * Takes away a lock whose holder is gone, unless somebody else has taken it meanwhile.
 *
 * @param {string} path
 * @param {string} expected the text that was judged stale
 */
function removeStale(path, expected) {
  const aside = `${path}.${randomBytes(6).toString('hex')}`;
  try {
    renameSync(path, aside);
  } catch {
    return;
  }
  if (readFileSync(aside, 'utf8') !== expected) {
    try {
      // It was a living one after all: give it back.
      linkSync(aside, path);
    } catch {
      // A third one has it now.
    }
  }
  rmSync(aside, { force: true });
}

/**
 * Runs `work` while no other process runs under the same name; waits for its turn.
 *
 * A lock whose holder has died is taken over, so a killed set-up blocks nobody.
 *
 * @template T
 * @param {string} folder where locks live
 * @param {string} name
 * @param {() => T | Promise<T>} work
 * @param {{ onWait?: (pid: number | undefined) => void, pollMilliseconds?: number }} [options]
 *   `onWait` is called once if there is something to wait for, with the holder's process number
 * @returns {Promise<T>}
 */
export async function withLock(folder, name, work, options = {}) {
  mkdirSync(folder, { recursive: true });
  const path = join(folder, `${name}.lock`);
  const text = JSON.stringify({
    pid: process.pid,
    host: hostname(),
    start: processStart(process.pid),
    token: randomBytes(8).toString('hex'),
  });
  let told = false;
  for (;;) {
    // Written aside and linked into place: a lock is never seen half written.
    const aside = `${path}.${randomBytes(6).toString('hex')}`;
    writeFileSync(aside, text);
    try {
      linkSync(aside, path);
      break;
    } catch (error) {
      if (/** @type {NodeJS.ErrnoException} */ (error).code !== 'EEXIST') throw error;
    } finally {
      rmSync(aside, { force: true });
    }
    const lock = readLock(path);
    if (lock?.stale) {
      removeStale(path, lock.text);
      continue;
    }
    if (lock && !told) {
      told = true;
      options.onWait?.(lock.pid);
    }
    await sleep(options.pollMilliseconds ?? 500);
  }
  const release = () => {
    if (readTextIfAny(path) === text) rmSync(path, { force: true });
  };
  const forget = onInterrupt(release);
  const heartbeat = setInterval(() => {
    try {
      utimesSync(path, new Date(), new Date());
    } catch {
      // Removed by hand: nothing to keep alive.
    }
  }, HEARTBEAT);
  heartbeat.unref();
  try {
    return await work();
  } finally {
    clearInterval(heartbeat);
    forget();
    release();
  }
}
