/**
 * Runs a task that can be asked to stop: the first Ctrl-C or SIGTERM aborts the signal, a second one ends the process at
 * once.
 *
 * @returns the task's result, and the signal that came, if one did
 */
export async function interruptible<T>(
  task: (signal: AbortSignal) => Promise<T>,
  notice: () => void,
): Promise<{ result: T; stoppedBy: 'SIGINT' | 'SIGTERM' | undefined }> {
  const controller = new AbortController();
  let stoppedBy: 'SIGINT' | 'SIGTERM' | undefined;
  const stop = (name: 'SIGINT' | 'SIGTERM'): void => {
    if (stoppedBy !== undefined) process.exit(exitCodeOf(name));
    stoppedBy = name;
    notice();
    controller.abort();
  };
  const onInterrupt = (): void => stop('SIGINT');
  const onTerminate = (): void => stop('SIGTERM');
  process.on('SIGINT', onInterrupt);
  process.on('SIGTERM', onTerminate);
  try {
    return { result: await task(controller.signal), stoppedBy };
  } finally {
    process.off('SIGINT', onInterrupt);
    process.off('SIGTERM', onTerminate);
  }
}

/** The exit code by which shells know that a signal ended a process. */
export function exitCodeOf(signal: 'SIGINT' | 'SIGTERM'): number {
  return signal === 'SIGINT' ? 130 : 143;
}
