import { type LaunchOptions, planLaunch } from './launch-plan.js';
import { LauncherPresence } from './launcher-presence.js';
import { RankOutput } from './rank-output.js';
import type { RankEnd, Ranks } from './ranks.js';
import { startMpiRanks } from './start-mpi-ranks.js';
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
 * @param to where to write
 * @throws FmoeError ERR_ARGUMENT for numbers that do not go together; ERR_SETUP without an `mpirun` for MPI
 */
export async function launch(
  options: LaunchOptions,
  to: { out: NodeJS.WritableStream; error: NodeJS.WritableStream } = {
    out: process.stdout,
    error: process.stderr,
  },
): Promise<LaunchResult> {
  const plan = await planLaunch(options);
  const output = new RankOutput(to, plan.worldSize, options.onlyRank);
  const presence = await LauncherPresence.open();
  let failed: RankEnd | undefined;
  let stoppedBy: (typeof forwarded)[number] | undefined;
  let ranks: Ranks | undefined;
  const onEnd = (end: RankEnd): void => {
    if (end.code === 0 || failed !== undefined || stoppedBy !== undefined) return;
    failed = end;
    output.blame(end.rank, `${describeEnd(end)}. The other ranks are ended.`);
    ranks?.stop();
  };
  const onSignal = (name: NodeJS.Signals): void => {
    if (stoppedBy !== undefined) ranks?.stop();
    else ranks?.signal(name);
    stoppedBy ??= name as (typeof forwarded)[number];
  };
  for (const name of forwarded) process.on(name, onSignal);
  try {
    const start = options.backend === 'mpi' ? startMpiRanks : startRanks;
    ranks = start(plan, presence, {
      onStream: (rank, kind, stream) => output.attach(rank, kind, stream),
      onEnd,
    });
    const complaint = await ranks.done;
    output.release();
    if (stoppedBy !== undefined) return { exitCode: 128 + signalNumbers[stoppedBy], stoppedBy };
    if (failed !== undefined) {
      // By which signal a rank died only mpirun knows.
      if (failed.code === null && complaint !== undefined) to.error.write(`${complaint}\n`);
      return { exitCode: codeOf(failed), failed };
    }
    if (complaint === undefined) return { exitCode: 0 };
    to.error.write(`fmoe: ERR_RUNTIME: The ranks could not be started or ended badly:\n${complaint}\n`);
    return { exitCode: 1 };
  } finally {
    for (const name of forwarded) process.off(name, onSignal);
    presence.close();
  }
}

function describeEnd({ rank, pid, code, signal }: RankEnd): string {
  const who = `rank ${rank}${pid === undefined ? '' : ` (process ${pid})`}`;
  if (code !== null) return `${who} ended with exit code ${code}`;
  return `${who} was killed${signal ? ` by ${signal}` : ''}`;
}

function codeOf({ code, signal }: RankEnd): number {
  if (code !== null) return code;
  return 128 + (signalNumbers[signal as keyof typeof signalNumbers] ?? signalNumbers.SIGKILL);
}
