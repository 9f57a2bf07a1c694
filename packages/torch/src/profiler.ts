import { closeSync, openSync } from 'node:fs';
import { checkFunction, checkOptions, checkString, refusePromise } from './check.js';
import { FmoeError } from './errors.js';
import { native } from './native/index.js';
import { guarded } from './tensor/tensor-base.js';

/** What a trace holds besides operator times. */
export interface ProfileOptions {
  /** Record GPU kernels. Default: when there is a GPU. */
  cuda?: boolean;
  /** Record the shapes of operands. Default: false. */
  recordShapes?: boolean;
  /** Record allocations. Default: false. */
  profileMemory?: boolean;
}

let running = false;

/**
 * Runs `body` under libtorch's profiler and writes a Chrome trace (chrome://tracing, Perfetto).
 *
 * @param path the JSON file to write
 * @throws FmoeError `ERR_ARGUMENT` inside of another profile or when `body` returns a promise; `ERR_FILE` when the file
 * cannot be written.
 */
export function profile<Result>(path: string, body: () => Result, options: ProfileOptions = {}): Result {
  checkString('profile', 'path', path);
  checkFunction('profile', 'body', body);
  checkOptions('profile', options, ['cuda', 'recordShapes', 'profileMemory']);
  if (running) {
    throw new FmoeError('ERR_ARGUMENT', 'profile(): already profiling; profiles do not nest', {
      op: 'profile',
    });
  }
  const { cuda = native().deviceCount() > 0, recordShapes = false, profileMemory = false } = options;
  touch(path);
  // Kineto complains on stderr about a missing driver even when only the CPU is profiled.
  process.env['KINETO_LOG_LEVEL'] ??= '5';
  guarded('profile', () => native().startProfiler(cuda, recordShapes, profileMemory));
  running = true;
  try {
    const result = body();
    refusePromise('profile', result, 'but only synchronous work can be profiled');
    return result;
  } finally {
    running = false;
    guarded('profile', () => native().stopProfiler(path));
  }
}

/** Kineto only logs when it cannot write: this fails before the work instead of after. */
function touch(path: string): void {
  try {
    closeSync(openSync(path, 'w'));
  } catch (error) {
    throw new FmoeError('ERR_FILE', `profile(): cannot write ${path}: ${(error as Error).message}`, {
      op: 'profile',
      cause: error,
    });
  }
}
