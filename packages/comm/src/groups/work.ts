import { Socket } from 'node:net';
import { commOperator } from '../load.js';

/** An operation that was started and that nobody has waited for yet. */
export interface Work<Result> {
  /** Whether {@link wait} would not have to wait. */
  readonly isDone: boolean;
  /**
   * Blocks until the operation is over and gives its result, again on every call.
   *
   * @throws FmoeError `ERR_COMM` when it failed or took longer than the group's timeout.
   */
  wait(): Result;
  /** The same without blocking the event loop. */
  promise(): Promise<Result>;
}

/** Frees what native code keeps for operations that were forgotten; they still run to their end. */
const forgotten = new FinalizationRegistry<number>((id) => {
  commOperator('forget')(id);
});

/** @internal */
export class NativeWork<Result> implements Work<Result> {
  private state: 'running' | 'done' | 'failed' = 'running';
  private error: unknown;

  constructor(
    private readonly id: number,
    private readonly result: Result,
  ) {
    forgotten.register(this, id, this);
  }

  get isDone(): boolean {
    return this.state !== 'running' || (commOperator('is_done')(this.id) as boolean);
  }

  wait(): Result {
    if (this.state === 'running') {
      forgotten.unregister(this);
      try {
        commOperator('wait')(this.id);
        this.state = 'done';
      } catch (error) {
        this.state = 'failed';
        this.error = error;
      }
    }
    if (this.state === 'failed') throw this.error;
    return this.result;
  }

  async promise(): Promise<Result> {
    await whenDone(this);
    return this.wait();
  }
}

interface Waiting {
  readonly work: Work<unknown>;
  readonly resolve: () => void;
}

const waiting = new Set<Waiting>();
let notifications: Socket | undefined;

/** Native code writes to a pipe when operations end, so that nothing polls. */
function whenDone(work: Work<unknown>): Promise<void> {
  if (work.isDone) return Promise.resolve();
  if (notifications === undefined) {
    notifications = new Socket({
      fd: commOperator('notifications')() as number,
      readable: true,
      writable: false,
    });
    notifications.on('data', settle);
  }
  // The process stays alive for as long as somebody waits.
  notifications.ref();
  return new Promise((resolve) => {
    waiting.add({ work, resolve });
    // It may have ended since it was asked.
    settle();
  });
}

function settle(): void {
  for (const entry of waiting) {
    if (!entry.work.isDone) continue;
    waiting.delete(entry);
    entry.resolve();
  }
  if (waiting.size === 0) notifications?.unref();
}
