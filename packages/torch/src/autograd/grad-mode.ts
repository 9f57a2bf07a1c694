import { FmoeError } from '../errors.js';
import { native } from '../native/index.js';

/** Whether operators are recorded for backward. */
export const isGradEnabled = (): boolean => native().isGradEnabled();

/** Switches recording on or off until it is switched again; gives the state before. {@link noGrad} is safer. */
export const setGradEnabled = (enabled: boolean): boolean => native().setGradEnabled(enabled);

/**
 * Runs `body` without recording. The mode is the thread's, so it cannot span an `await`.
 *
 * @throws FmoeError `ERR_ARGUMENT` when `body` returns a promise.
 */
export const noGrad = <Result>(body: () => Result): Result => withGradMode('noGrad', false, body);

/** Runs `body` with recording, inside of {@link noGrad}. */
export const enableGrad = <Result>(body: () => Result): Result => withGradMode('enableGrad', true, body);

function withGradMode<Result>(name: string, enabled: boolean, body: () => Result): Result {
  const previous = native().setGradEnabled(enabled);
  try {
    const result = body();
    if (result instanceof Promise) {
      result.catch(() => {});
      throw new FmoeError(
        'ERR_ARGUMENT',
        `${name}(): the function returned a promise, but the mode ends with the call`,
        {
          op: name,
        },
      );
    }
    return result;
  } finally {
    native().setGradEnabled(previous);
  }
}
