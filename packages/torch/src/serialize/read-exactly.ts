import { readSync } from 'node:fs';
import { fileError, withFileErrors } from './file-errors.js';

/** Fills `bytes` from an open file, in as many calls as it takes. Throws ERR_FILE where the file ends before. */
export function readExactly(
  op: string,
  path: string,
  file: number,
  bytes: Uint8Array,
  position: number,
): void {
  withFileErrors(op, path, 'read it', () => {
    let done = 0;
    while (done < bytes.length) {
      const count = readSync(file, bytes, done, bytes.length - done, position + done);
      if (count === 0) throw fileError(op, path, `it ends at byte ${position + done}, while being read.`);
      done += count;
    }
  });
}
