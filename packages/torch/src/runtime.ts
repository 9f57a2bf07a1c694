import { existsSync } from 'node:fs';
import { resolve } from 'node:path';
import { checkCount, checkString } from './check.js';
import { FmoeError } from './errors.js';
import { native } from './native/index.js';
import { openSharedLibrary } from './native/load.js';

/** The libtorch that is loaded, such as `2.11.0`. */
export const libtorchVersion = (): string => native().torchVersion;

/** Threads that one operator may use. */
export const getNumThreads = (): number => native().getNumThreads();

/**
 * Sets how many threads one operator may use.
 *
 * @throws FmoeError `ERR_ARGUMENT` for what is no integer from 1 to 1024.
 */
export function setNumThreads(threads: number): void {
  checkCount('setNumThreads', 'threads', threads, 1);
  if (threads > 1024)
    throw new FmoeError('ERR_ARGUMENT', `setNumThreads: ${threads} threads are more than 1024`);
  native().setNumThreads(threads);
}

/**
 * Opens a shared library of operators (`TORCH_LIBRARY`); they can then be reached by `op('namespace::name')`. Opening one
 * twice is harmless.
 *
 * @throws FmoeError `ERR_FILE` when there is no such file, `ERR_SETUP` when it cannot be loaded.
 */
export function loadLibrary(path: string): void {
  checkString('loadLibrary', 'path', path);
  const absolute = resolve(path);
  if (!existsSync(absolute))
    throw new FmoeError('ERR_FILE', `loadLibrary(): there is no file ${absolute}`, { op: 'loadLibrary' });
  native();
  openSharedLibrary(absolute);
}
