/** Two simulated machines, with the first MPI that is found. */
import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { expect, it } from 'vitest';

const script = fileURLToPath(new URL('./two-nodes.mjs', import.meta.url));

it('trains on two simulated machines, and ends on both when the cable is cut', {
  timeout: 120_000,
}, (context) => {
  const { status, stdout, stderr } = spawnSync(process.execPath, [script], {
    encoding: 'utf8',
    timeout: 110_000,
  });
  const reason = /^skipped: (.*)/.exec(stdout)?.[1];
  if (reason !== undefined) {
    console.log(`two-nodes.mjs was skipped: ${reason}`);
    context.skip(reason);
  }
  expect(status, `${stdout}${stderr}`).toBe(0);
});
