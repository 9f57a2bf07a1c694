import { closeSync, fstatSync, openSync, readSync, statSync } from 'node:fs';
import { FmoeError } from '@fmoe/torch';

const chunkBytes = 1 << 22;

const remedies: Record<string, string> = {
  ENOENT: 'No such file. Check the path.',
  EACCES: 'Permission denied. Make it readable, for example with chmod u+r.',
  EPERM: 'Permission denied. Make it readable, for example with chmod u+r.',
  EISDIR: 'It is a folder, a file was expected.',
  ENOTDIR: 'A part of the path is a file, not a folder.',
};

/** The coded error for a file system failure on `path`. */
export function fileError(path: string, cause: unknown): FmoeError {
  if (FmoeError.isInstance(cause)) return cause;
  const code = (cause as NodeJS.ErrnoException)?.code ?? '';
  const why = remedies[code] ?? (cause instanceof Error ? cause.message : String(cause));
  return new FmoeError('ERR_FILE', `Cannot read ${path}: ${why}`, { cause });
}

/** `'file'`, `'folder'` or `undefined` where nothing is at `path`. */
export function kindOfPath(path: string): 'file' | 'folder' | undefined {
  const stat = statSync(path, { throwIfNoEntry: false });
  if (stat === undefined) return undefined;
  return stat.isDirectory() ? 'folder' : 'file';
}

/**
 * Reads a file in pieces, so that a corpus larger than the longest string can be read.
 * The buffer that is yielded is used again for the next piece.
 *
 * @throws FmoeError ERR_FILE when the file is missing, unreadable or empty
 */
export function* readChunks(path: string): Generator<Uint8Array, void, undefined> {
  let descriptor: number;
  try {
    descriptor = openSync(path, 'r');
  } catch (error) {
    throw fileError(path, error);
  }
  try {
    const stat = fstatSync(descriptor);
    if (stat.isFile() && stat.size === 0) {
      throw new FmoeError('ERR_FILE', `Cannot use ${path}: the file is empty.`);
    }
    const buffer = new Uint8Array(chunkBytes);
    for (;;) {
      let read: number;
      try {
        read = readSync(descriptor, buffer, 0, chunkBytes, null);
      } catch (error) {
        throw fileError(path, error);
      }
      if (read === 0) return;
      yield buffer.subarray(0, read);
    }
  } finally {
    closeSync(descriptor);
  }
}

/**
 * Reads a UTF-8 file in pieces of text; a piece never ends inside a character.
 *
 * @throws FmoeError ERR_FILE when the file is missing, unreadable, empty or not UTF-8
 */
export function* readText(path: string): Generator<string, void, undefined> {
  const decoder = new TextDecoder('utf-8', { fatal: true });
  let offset = 0;
  const decode = (chunk?: Uint8Array): string => {
    try {
      return chunk === undefined ? decoder.decode() : decoder.decode(chunk, { stream: true });
    } catch (error) {
      const where = `between byte ${offset} and ${offset + (chunk?.length ?? 0)}`;
      throw new FmoeError(
        'ERR_FILE',
        `Cannot use ${path}: it is not UTF-8 text (${where}). Convert it first, for example with iconv -t utf-8.`,
        { cause: error },
      );
    }
  };
  for (const chunk of readChunks(path)) {
    yield decode(chunk);
    offset += chunk.length;
  }
  yield decode();
}

/**
 * Reads a UTF-8 file line by line, without line ends. As in Python's text mode, `\n`, `\r` and `\r\n` end a
 * line, and a last line without an end counts as one.
 *
 * @throws FmoeError ERR_FILE as {@link readText}
 */
export function* readLines(path: string): Generator<string, void, undefined> {
  let rest = '';
  for (const text of readText(path)) {
    const joined = rest + text;
    // A piece may end between \r and \n: keep the \r for the next one.
    const usable = joined.endsWith('\r') ? joined.length - 1 : joined.length;
    const lines = joined.slice(0, usable).split(/\r\n|\r|\n/);
    rest = lines.pop()! + joined.slice(usable);
    yield* lines;
  }
  if (rest.endsWith('\r')) rest = rest.slice(0, -1);
  else if (rest === '') return;
  yield rest;
}
