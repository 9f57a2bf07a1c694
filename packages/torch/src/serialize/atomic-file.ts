import { randomBytes } from 'node:crypto';
import { closeSync, fsyncSync, openSync, renameSync, rmSync, writeSync } from 'node:fs';
import { dirname } from 'node:path';
import { withFileErrors } from './file-errors.js';

/** How a file is put in place. */
export interface AtomicFileOptions {
  /** Write beside the target and rename, so that the target is the old file or the whole new one. Default true. */
  atomic?: boolean;
  /** Wait until the data (and, when atomic, the name) are on the disk. Default true. */
  fsync?: boolean;
}

/** Writes all bytes at the file's current position, in as many calls as it takes. */
export function writeFully(file: number, bytes: Uint8Array): void {
  let done = 0;
  while (done < bytes.length) {
    done += writeSync(file, bytes, done, bytes.length - done);
  }
}

function syncFolder(path: string): void {
  let folder: number;
  try {
    folder = openSync(path, 'r');
  } catch {
    return; // Not every system opens folders; the file itself is synced already.
  }
  try {
    fsyncSync(folder);
  } catch {
    // Nor does every file system sync them.
  } finally {
    closeSync(folder);
  }
}

/**
 * Creates or replaces a file so that a crash at any moment leaves the old content or the new, never a part.
 *
 * @param path the file to write
 * @param write receives the open file descriptor and writes the content
 * @throws FmoeError ERR_FILE when the system refuses; what `write` throws passes through. The temporary file is removed.
 */
export function writeFileAtomic(
  path: string,
  write: (file: number) => void,
  { atomic = true, fsync = true }: AtomicFileOptions = {},
): void {
  const target = atomic ? `${path}.${process.pid}-${randomBytes(4).toString('hex')}.tmp` : path;
  withFileErrors('writeFileAtomic', path, 'write it', () => {
    const file = openSync(target, atomic ? 'wx' : 'w');
    try {
      try {
        write(file);
        if (fsync) fsyncSync(file);
      } finally {
        closeSync(file);
      }
      if (atomic) {
        renameSync(target, path);
        if (fsync) syncFolder(dirname(path));
      }
    } catch (error) {
      if (atomic) rmSync(target, { force: true });
      throw error;
    }
  });
}
