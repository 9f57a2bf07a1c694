import { spawn } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import type { Socket } from 'node:net';
import { basename, join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { exitFileOf, running as noteOfRunning } from './follow-launcher.js';
import type { LaunchPlan } from './launch-plan.js';
import type { LauncherPresence } from './launcher-presence.js';
import { type Mpirun, mpirunEnvironment } from './mpirun.js';
import { makePipes, openPipe } from './named-pipes.js';
import { graceMilliseconds, type RankEvents, type Ranks } from './ranks.js';
import { kill } from './start-ranks.js';

/** What MPI's programs start for each rank: the script of the launcher on whose machine that is. */
export const rankCommand = ['sh', '-c', '. "$FMOE_LAUNCHER/rank"'] as const;

/*
 * It leaves its process id and writes to named pipes of its own. The streams of mpirun would mix the lines of the ranks, and not
 * tell when one of them ends.
 */
const rankScript = (command: readonly string[], env: NodeJS.ProcessEnv): string => `cd ${quote(process.cwd())}
${Object.entries(env)
  .map(([name, value]) => `export ${name}=${quote(value ?? '')}\n`)
  .join('')}rank=$OMPI_COMM_WORLD_RANK$PMI_RANK
echo $$ >"$FMOE_LAUNCHER/pid-$rank"
exec ${command.map(quote).join(' ')} >"$FMOE_LAUNCHER/out-$rank" 2>"$FMOE_LAUNCHER/error-$rank" </dev/null
`;

/** The program of an MPI that starts {@link rankCommand} on this machine: mpirun, or its daemon for mpirun on another machine. */
export interface MpiStarter {
  mpirun: Mpirun;
  program: string;
  args: readonly string[];
  /** Variables of the ranks, which win over those that mpirun brings from its machine. */
  rankEnv?: NodeJS.ProcessEnv;
}

/** Starts the ranks of this machine through MPI. */
export function startMpiRanks(
  plan: LaunchPlan,
  presence: LauncherPresence,
  events: RankEvents,
  { mpirun, program, args, rankEnv = {} }: MpiStarter,
): Ranks {
  const { folder } = presence;
  const ranks = Array.from({ length: plan.processes }, (_, local) => plan.firstRank + local);
  writeFileSync(join(folder, 'rank'), rankScript(plan.command, rankEnv), { mode: 0o600 });
  makePipes(ranks.flatMap((rank) => [join(folder, `out-${rank}`), join(folder, `error-${rank}`)]));
  const running = new Set(ranks);
  const sockets: Socket[] = [];
  const ended = ranks.map((rank) => {
    const closed = (['out', 'error'] as const).map((kind) => {
      const socket = openPipe(join(folder, `${kind}-${rank}`));
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
  const starter = spawn(program, args, {
    detached: true,
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { ...plan.env, ...mpirunEnvironment(mpirun, plan.processes), ...presence.env },
  });
  let words = '';
  let endStarters: (() => void) | undefined;
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
      // OpenMPI's daemon goes on in a child with a session of its own.
      const starters = [starter.pid, ...childrenOf(starter.pid)];
      // They end the ranks and clean up after them.
      for (const pid of starters) kill(pid, 'SIGTERM');
      const end = (): void => {
        for (const pid of pids()) killOne(pid, 'SIGKILL');
        for (const pid of starters) kill(pid, 'SIGKILL');
        endStarters = undefined;
      };
      endStarters = end;
      setTimeout(end, graceMilliseconds).unref();
    },
    done: new Promise((resolve) => {
      starter.on('error', (error) => resolve(error.message));
      starter.on('close', async (code) => {
        // mpirun does not wait for ranks that it told to end. Their pipes close with them.
        const deadline = performance.now() + graceMilliseconds;
        while (pids().length > 0 && performance.now() < deadline) await pause(10);
        for (const pid of pids()) killOne(pid, 'SIGKILL');
        const started = ended.filter((_, local) => pidOf(ranks[local]!) !== undefined);
        await Promise.race([Promise.all(started), pause(graceMilliseconds, undefined, { ref: false })]);
        endStarters?.();
        for (const socket of sockets) socket.destroy();
        resolve(code === 0 ? undefined : words.trim() || `${basename(program)} ended with exit code ${code}`);
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

/** A word of a shell's script. */
function quote(text: string): string {
  return `'${text.replaceAll("'", `'\\''`)}'`;
}

/** Processes that a process started and that still are its children. */
function childrenOf(pid: number | undefined): number[] {
  return (read(`/proc/${pid}/task/${pid}/children`) ?? '').split(' ').filter(Boolean).map(Number);
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
