import { spawn, spawnSync } from 'node:child_process';
import { constants, openSync, readFileSync } from 'node:fs';
import { Socket } from 'node:net';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { FmoeError } from '@fmoe/torch';
import { exitFileOf, running as noteOfRunning } from './follow-launcher.js';
import type { LaunchPlan } from './launch-plan.js';
import type { LauncherPresence } from './launcher-presence.js';
import { findMpirun, mpirunArguments, mpirunEnvironment } from './mpirun.js';
import { graceMilliseconds, type RankEvents, type Ranks } from './ranks.js';
import { kill } from './start-ranks.js';

/*
 * What each rank runs first: it leaves its process id and writes to named pipes of its own. The streams of mpirun would mix the
 * lines of the ranks, and not tell when one of them ends.
 */
const prelude =
  'r=$OMPI_COMM_WORLD_RANK$PMI_RANK; d=$FMOE_LAUNCHER; echo $$ >"$d/pid-$r"; exec "$@" >"$d/out-$r" 2>"$d/error-$r" </dev/null';

/** Starts the ranks through `mpirun`. */
export function startMpiRanks(plan: LaunchPlan, presence: LauncherPresence, events: RankEvents): Ranks {
  const mpirun = findMpirun(plan.env);
  const { folder } = presence;
  const ranks = Array.from({ length: plan.processes }, (_, rank) => rank);
  makePipes(ranks.flatMap((rank) => [join(folder, `out-${rank}`), join(folder, `error-${rank}`)]));
  const running = new Set(ranks);
  const sockets: Socket[] = [];
  const ended = ranks.map((rank) => {
    const closed = (['out', 'error'] as const).map((kind) => {
      const socket = new Socket({
        fd: openSync(join(folder, `${kind}-${rank}`), constants.O_RDONLY | constants.O_NONBLOCK),
        readable: true,
        writable: false,
      });
      sockets.push(socket);
      events.onStream(rank, kind, socket);
      return new Promise<boolean>((resolve) => {
        socket.on('end', () => resolve(true)).on('close', () => resolve(false));
      });
    });
    // Both of its streams have ended: so has the rank.
    return Promise.all(closed).then((byItself) => {
      if (!running.delete(rank) || byItself.includes(false)) return;
      const pid = pidOf(rank);
      const note = pid === undefined ? undefined : read(join(folder, exitFileOf(pid)));
      // Of a program that does not follow the launcher only mpirun knows how it ended.
      if (note === undefined) return;
      events.onEnd({ rank, pid, code: note === noteOfRunning ? null : Number(note) });
    });
  });
  const starter = spawn(
    mpirun.path,
    [...mpirunArguments(mpirun, plan.processes), 'sh', '-c', prelude, 'sh', ...plan.command],
    {
      detached: true,
      stdio: ['ignore', 'pipe', 'pipe'],
      env: { ...plan.env, ...mpirunEnvironment(mpirun, plan.processes), ...presence.env },
    },
  );
  let words = '';
  for (const stream of [starter.stdout, starter.stderr]) {
    stream.setEncoding('utf8').on('data', (text: string) => {
      words = `${words}${text}`.slice(-4000);
    });
  }
  const pidOf = (rank: number): number | undefined => Number(read(join(folder, `pid-${rank}`))) || undefined;
  const pids = (): number[] => ranks.flatMap((rank) => pidOf(rank) ?? []).filter(isRunning);
  return {
    signal(name) {
      for (const pid of pids()) killOne(pid, name);
      // Nobody to tell yet.
      if (pids().length === 0) kill(starter.pid, name);
    },
    stop() {
      // It ends the ranks and cleans up after them.
      kill(starter.pid, 'SIGTERM');
      setTimeout(() => {
        for (const pid of pids()) killOne(pid, 'SIGKILL');
        kill(starter.pid, 'SIGKILL');
      }, graceMilliseconds).unref();
    },
    done: new Promise((resolve) => {
      starter.on('error', (error) => resolve(error.message));
      starter.on('close', async (code) => {
        // mpirun does not wait for ranks that it told to end. Their pipes close with them.
        const deadline = performance.now() + graceMilliseconds;
        while (pids().length > 0 && performance.now() < deadline) await pause(10);
        for (const pid of pids()) killOne(pid, 'SIGKILL');
        const started = ended.filter((_, rank) => pidOf(rank) !== undefined);
        await Promise.race([Promise.all(started), pause(graceMilliseconds, undefined, { ref: false })]);
        for (const socket of sockets) socket.destroy();
        resolve(code === 0 ? undefined : words.trim() || `mpirun ended with exit code ${code}`);
      });
    }),
  };
}

/** Whether a process runs; one that ended and that nobody has asked for does not. */
function isRunning(pid: number): boolean {
  try {
    return !/\) [ZX] /.test(readFileSync(`/proc/${pid}/stat`, 'utf8'));
  } catch {
    return false;
  }
}

function makePipes(paths: readonly string[]): void {
  const { status, stderr, error } = spawnSync('mkfifo', ['-m', '600', ...paths], { encoding: 'utf8' });
  if (status === 0) return;
  throw new FmoeError('ERR_FILE', `launch: mkfifo failed: ${error?.message ?? stderr.trim()}`, {
    cause: error,
  });
}

function read(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8').trim();
  } catch {
    return undefined;
  }
}

function killOne(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(pid, signal);
  } catch {}
}
