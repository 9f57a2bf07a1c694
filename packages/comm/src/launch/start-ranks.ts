import { type ChildProcess, spawn } from 'node:child_process';
import type { LaunchPlan } from './launch-plan.js';
import type { LauncherPresence } from './launcher-presence.js';
import { graceMilliseconds, type RankEvents, type Ranks } from './ranks.js';

/** Starts the ranks of this machine itself, and tells them who they are as torchrun does. */
export function startRanks(plan: LaunchPlan, presence: LauncherPresence, events: RankEvents): Ranks {
  const running = new Map<number, ChildProcess>();
  const ends = Array.from({ length: plan.processes }, (_, local) => {
    const rank = plan.firstRank + local;
    const [program, ...args] = plan.command;
    const child = spawn(program, args, {
      // A group of its own, so that a Ctrl-C of the terminal comes through the launcher, once, and children die as well.
      detached: true,
      stdio: ['ignore', 'pipe', 'pipe'],
      env: {
        ...plan.env,
        ...presence.env,
        RANK: `${rank}`,
        WORLD_SIZE: `${plan.worldSize}`,
        LOCAL_RANK: `${local}`,
        LOCAL_WORLD_SIZE: `${plan.processes}`,
        NODE_RANK: `${plan.nodeRank}`,
      },
    });
    running.set(rank, child);
    events.onStream(rank, 'out', child.stdout);
    events.onStream(rank, 'error', child.stderr);
    return new Promise<void>((resolve) => {
      child.on('error', () => {
        // Not started at all: what shells say of a command that they do not find.
        events.onEnd({ rank, code: 127 });
        resolve();
      });
      child.on('exit', (code, signal) => {
        running.delete(rank);
        const report = (): void => {
          child.off('close', report);
          clearTimeout(late);
          events.onEnd({ rank, pid: child.pid, code, signal });
          resolve();
        };
        // What it started may hold its streams open; that is not waited for.
        const late = setTimeout(report, 300);
        child.on('close', report);
      });
    });
  });
  const signal = (name: NodeJS.Signals): void => {
    for (const { pid } of running.values()) kill(pid, name);
  };
  return {
    signal,
    stop() {
      signal('SIGTERM');
      setTimeout(() => signal('SIGKILL'), graceMilliseconds).unref();
    },
    done: Promise.all(ends).then(() => undefined),
  };
}

/** Signals a process and all of its group; it may be gone already. */
export function kill(pid: number | undefined, signal: NodeJS.Signals): void {
  if (pid === undefined) return;
  try {
    process.kill(-pid, signal);
  } catch {}
}
