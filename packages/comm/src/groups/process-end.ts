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
    if (code === 0 && commOperator('group_failure')(group.id) === '') {
      commOperator('finish')();
      return;
    }
    if (fatal !== undefined) {
      writeSync(2, `rank ${group.rank} of ${group.size} failed:\n${inspect(fatal)}\n`);
    }
    commOperator('abort')(code === 0 ? 1 : code);
  });
}
