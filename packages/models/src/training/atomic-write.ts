import { closeSync, fsyncSync, openSync, writeFileSync } from 'node:fs';
import { writeFileAtomic } from '@fmoe/torch';

/**
 * Writes a whole file so that a crash at any moment leaves the old content or the new, never a part.
 *
 * @throws FmoeError ERR_FILE when the system refuses
 */
export function writeWholeFile(path: string, content: string | Uint8Array): void {
  writeFileAtomic(path, (file) => writeFileSync(file, content));
}

/** Waits until a folder's entries are on the disk. */
export function syncFolder(path: string): void {
  const descriptor = openSync(path, 'r');
  try {
    fsyncSync(descriptor);
  } finally {
    closeSync(descriptor);
  }
}
