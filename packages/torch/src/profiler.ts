import { FmoeError } from './errors.js';
import { native } from './native/index.js';
import { guarded } from './tensor-base.js';

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
 * @throws FmoeError `ERR_ARGUMENT` inside of another profile or when `body` returns a promise.
 */
export function profile<Result>(path: string, body: () => Result, options: ProfileOptions = {}): Result {
  if (running)
    throw new FmoeError('ERR_ARGUMENT', 'profile(): already profiling; profiles do not nest', {
      op: 'profile',
    });
  const { cuda = native().deviceCount() > 0, recordShapes = false, profileMemory = false } = options;
  // Kineto complains on stderr about a missing driver even when only the CPU is profiled.
  process.env['KINETO_LOG_LEVEL'] ??= '5';
  guarded('profile', () => native().startProfiler(cuda, recordShapes, profileMemory));
  running = true;
  try {
    const result = body();
    if (result instanceof Promise) {
      result.catch(() => {});
      throw new FmoeError(
        'ERR_ARGUMENT',
        'profile(): the function returned a promise; profile synchronous work',
        { op: 'profile' },
      );
    }
    return result;
  } finally {
    running = false;
    guarded('profile', () => native().stopProfiler(path));
  }
}
