import { checkBoolean, checkFunction, refusePromise } from '../check.js';
import { native } from '../native/index.js';

/** Whether operators are recorded for backward. */
export const isGradEnabled = (): boolean => native().isGradEnabled();

/** Switches recording on or off until it is switched again; gives the state before. {@link noGrad} is safer. */
export function setGradEnabled(enabled: boolean): boolean {
  checkBoolean('setGradEnabled', 'enabled', enabled);
  return native().setGradEnabled(enabled);
}

/**
 * Runs `body` without recording. The mode is the thread's, so it cannot span an `await`.
 *
 * @throws FmoeError `ERR_ARGUMENT` when `body` returns a promise.
 */
export const noGrad = <Result>(body: () => Result): Result => withGradMode('noGrad', false, body);

/** Runs `body` with recording, inside of {@link noGrad}. */
export const enableGrad = <Result>(body: () => Result): Result => withGradMode('enableGrad', true, body);

function withGradMode<Result>(name: string, enabled: boolean, body: () => Result): Result {
  checkFunction(name, 'body', body);
  const previous = native().setGradEnabled(enabled);
  try {
    const result = body();
    refusePromise(name, result, 'but the mode ends with the call');
    return result;
  } finally {
    native().setGradEnabled(previous);
  }
}
