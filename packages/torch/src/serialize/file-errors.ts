import { FmoeError } from '../errors.js';

const reasons: Record<string, string> = {
  ENOENT: 'there is no such file or folder',
  EACCES: 'permission denied',
  EPERM: 'operation not permitted',
  EISDIR: 'it is a folder',
  ENOTDIR: 'a part of the path is not a folder',
  ENOSPC: 'the disk is full',
  EROFS: 'the file system is read-only',
  EMFILE: 'too many files are open in this process',
};

/** An ERR_FILE error about `path`. */
export function fileError(op: string, path: string, problem: string, cause?: unknown): FmoeError {
  return new FmoeError('ERR_FILE', `${op}: ${path}: ${problem}`, { op, argument: 'path', cause });
}

/** Runs a file operation; what the operating system refuses becomes an ERR_FILE error that says why. */
export function withFileErrors<T>(op: string, path: string, action: string, run: () => T): T {
  try {
    return run();
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? error.code : undefined;
    const isSystemError = error instanceof Error && 'syscall' in error && typeof code === 'string';
    if (!isSystemError) throw error;
    throw fileError(op, path, `cannot ${action}: ${reasons[code] ?? code}.`, error);
  }
}
