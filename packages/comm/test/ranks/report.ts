import { renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

/** Leaves this rank's result for the test that started it, in a file or as a line; without a value only the process id. */
export function report(rank: number, value?: unknown): void {
  const folder = process.env['FMOE_TEST_REPORTS'];
  if (folder === undefined) {
    console.log(JSON.stringify({ rank, pid: process.pid, value }));
    return;
  }
  const file = join(folder, `rank-${rank}.json`);
  writeFileSync(`${file}.partial`, JSON.stringify({ pid: process.pid, value }));
  renameSync(`${file}.partial`, file);
}
