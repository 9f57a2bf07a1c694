import { setImmediate } from 'node:timers/promises';

/** Lets the event loop turn once, so that signals and timers are served and forgotten tensors are freed. */
export function nextTurn(): Promise<void> {
  return setImmediate();
}
