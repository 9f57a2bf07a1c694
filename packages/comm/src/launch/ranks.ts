import type { Readable } from 'node:stream';

/** How a rank ended. */
export interface RankEnd {
  rank: number;
  pid?: number | undefined;
  /** Its exit code; null when it was killed. */
  code: number | null;
  /** What killed it, where that is known. */
  signal?: NodeJS.Signals | null | undefined;
  /** The number of its machine, where there are several. */
  node?: number | undefined;
}

/** Who wants to know what the ranks do. */
export interface RankEvents {
  /** A rank will write to a stream. */
  onStream(rank: number, kind: 'out' | 'error', stream: Readable): void;
  /** A rank has ended and its streams as well. Called once for each, in the order of their ends. */
  onEnd(end: RankEnd): void;
}

/** The ranks that were started on this machine. */
export interface Ranks {
  /** Sends a signal to all that run. */
  signal(name: NodeJS.Signals): void;
  /** Ends all that still run: at once, if they do not follow in time. */
  stop(): void;
  /** When all have ended. If what started them failed by itself, its message. */
  readonly done: Promise<string | undefined>;
}

/** Time for a rank to end after it was told to. */
export const graceMilliseconds = 2000;
