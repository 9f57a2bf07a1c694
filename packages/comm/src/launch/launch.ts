import { type LaunchOptions, planLaunch } from './launch-plan.js';
import { LauncherPresence } from './launcher-presence.js';
import { joinMpiNodes, startNodeRanks } from './mpi-nodes.js';
import { findMpirun, mpirunArguments } from './mpirun.js';
import { RankOutput } from './rank-output.js';
import type { RankEnd, RankEvents, Ranks } from './ranks.js';
import { rankCommand, startMpiRanks } from './start-mpi-ranks.js';
import { startRanks } from './start-ranks.js';

/** How a run of many ranks ended. */
export interface LaunchResult {
  /** 0, the code of the rank that failed first, or that by which shells know the signal. */
  exitCode: number;
  /** The rank that failed first. */
  failed?: RankEnd;
  /** The signal that was passed on to the ranks. */
  stoppedBy?: NodeJS.Signals;
}

const signalNumbers = { SIGHUP: 1, SIGINT: 2, SIGKILL: 9, SIGTERM: 15 } as const;
const forwarded = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;

/**
 * Starts the ranks of this machine and waits for them. What they write appears line by line with the rank before it.
 *
 * The first rank that fails ends the others: it is named, and what the others still say comes after that. SIGINT, SIGTERM and
 * SIGHUP go to the ranks; a second one ends them at once. No rank outlives the launcher.
 *
 * On several machines a launcher runs on each, and each shows its own ranks. Over MPI they meet first, at `masterAddr` and
 * `masterPort`; the launcher of machine 0 then calls `mpirun`, the others start its daemons. All of them end for the same reason.
 *
 * @param to where to write
 * @throws FmoeError ERR_ARGUMENT for numbers that do not go together; ERR_SETUP without an `mpirun` for MPI; ERR_COMM when
 * machines do not find each other in time, ERR_CONFIG when they do not go together
 */
export async function launch(
  options: LaunchOptions,
  to: { out: NodeJS.WritableStream; error: NodeJS.WritableStream } = {
    out: process.stdout,
    error: process.stderr,
  },
): Promise<LaunchResult> {
  const plan = await planLaunch(options);
  const mpirun = options.backend === 'mpi' ? findMpirun(plan.env) : undefined;
  // Nothing is running yet: a signal ends this process.
  const nodes = mpirun && plan.nodes > 1 ? await joinMpiNodes(plan, mpirun) : undefined;
  const output = new RankOutput(to, plan.worldSize, options.onlyRank);
  const presence = await LauncherPresence.open();
  let failed: RankEnd | undefined;
  let problem: string | undefined;
  let stoppedBy: (typeof forwarded)[number] | undefined;
  let ranks: Ranks | undefined;
  const isOver = (): boolean => failed !== undefined || stoppedBy !== undefined || problem !== undefined;
  const onFailed = (end: RankEnd): void => {
    if (isOver()) return;
    failed = end;
    output.blame(end.rank, `${describeEnd(end)}. The other ranks are ended.`);
    ranks?.stop();
  };
  const onProblem = (text: string): void => {
    if (isOver()) return;
    problem = text;
    to.error.write(`fmoe: ERR_COMM: ${text}. The ranks of this machine are ended.\n`);
    ranks?.stop();
  };
  const onForwarded = (name: NodeJS.Signals): void => {
    if (stoppedBy !== undefined) ranks?.stop();
    else ranks?.signal(name);
    stoppedBy ??= name as (typeof forwarded)[number];
  };
  const onSignal = (name: NodeJS.Signals): void => {
    nodes?.signal(name);
    onForwarded(name);
  };
  const events: RankEvents = {
    onStream: (rank, kind, stream) => output.attach(rank, kind, stream),
    onEnd(end) {
      if (end.code === 0 || isOver()) return;
      if (nodes === undefined) onFailed(end);
      else nodes.report({ ...end, node: nodes.node });
    },
  };
  for (const name of forwarded) process.on(name, onSignal);
  try {
    nodes?.follow({ onFailed, onProblem, onSignal: onForwarded });
    if (mpirun === undefined) {
      ranks = startRanks(plan, presence, events);
    } else if (nodes === undefined) {
      const args = [...mpirunArguments(mpirun, plan.processes), ...rankCommand];
      ranks = startMpiRanks(plan, presence, events, { mpirun, program: mpirun.path, args });
    } else {
      ranks = await startNodeRanks(plan, presence, events, mpirun, nodes);
    }
    const own = await ranks?.done;
    const complaint = nodes === undefined ? own : await nodes.conclude(own, isOver());
    output.release();
    if (stoppedBy !== undefined) return { exitCode: 128 + signalNumbers[stoppedBy], stoppedBy };
    if (failed !== undefined) {
      // By which signal a rank died only mpirun knows.
      if (failed.code === null && complaint !== undefined) to.error.write(`${complaint}\n`);
      return { exitCode: codeOf(failed), failed };
    }
    if (problem !== undefined) return { exitCode: 1 };
    if (complaint === undefined) return { exitCode: 0 };
    to.error.write(`fmoe: ERR_RUNTIME: The ranks could not be started or ended badly:\n${complaint}\n`);
    return { exitCode: 1 };
  } finally {
    for (const name of forwarded) process.off(name, onSignal);
    presence.close();
  }
}

function describeEnd({ rank, pid, code, signal, node }: RankEnd): string {
  const where = node === undefined ? '' : ` of machine ${node}`;
  const who = `rank ${rank}${pid === undefined ? '' : ` (process ${pid}${where})`}`;
  if (code !== null) return `${who} ended with exit code ${code}`;
  return `${who} was killed${signal ? ` by ${signal}` : ''}`;
}

function codeOf({ code, signal }: RankEnd): number {
  if (code !== null) return code;
  return 128 + (signalNumbers[signal as keyof typeof signalNumbers] ?? signalNumbers.SIGKILL);
}
