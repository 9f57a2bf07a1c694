import { spawnSync } from 'node:child_process';
import { constants, openSync } from 'node:fs';
import { Socket } from 'node:net';
import { FmoeError } from '@fmoe/torch';

/** Makes named pipes that only this user opens. */
export function makePipes(paths: readonly string[]): void {
  const { status, stderr, error } = spawnSync('mkfifo', ['-m', '600', ...paths], { encoding: 'utf8' });
  if (status === 0) return;
  throw new FmoeError('ERR_FILE', `launch: mkfifo failed: ${error?.message ?? stderr.trim()}`, {
    cause: error,
  });
}

/** What is written to a named pipe. It ends when the last writer is gone. */
export function openPipe(path: string): Socket {
  const fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
  return new Socket({ fd, readable: true, writable: false });
}
