import { writeSync } from 'node:fs';
import { inspect } from 'node:util';
import { commOperator } from '../load.js';
import type { ProcessGroup } from './process-group.js';

let world: ProcessGroup | undefined;
let fatal: unknown;

/**
 * @internal Ends the communication with the process: in order after success, and for all ranks at once after a failure, so that
 * none waits for this one.
 */
export function endWithProcess(group: ProcessGroup): void {
  if (world !== undefined) return;
  world = group;
  // The native abort ends the process before Node has printed the error, so it is printed here.
  process.on('uncaughtExceptionMonitor', (error) => {
    fatal = error;
  });
  process.once('exit', (code) => {
    const failure = commOperator('group_failure')(group.id) as string;
    if (code === 0 && failure === '') {
      try {
        commOperator('finish')();
        return;
      } catch (error) {
        fatal = error;
      }
    }
    // An operation that the program did not wait for may have failed without its knowledge.
    const reason = fatal === undefined ? failure : inspect(fatal);
    if (reason !== '') writeSync(2, `rank ${group.rank} of ${group.size} failed:\n${reason}\n`);
    commOperator('abort')(code === 0 ? 1 : code);
  });
}
