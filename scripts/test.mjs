import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { readJsonIfAny } from '../packages/torch/setup/files.mjs';
import { foreground } from './foreground.mjs';
import { root, setUp, toolEnvironment } from './workspace.mjs';

await setUp();

const folder = mkdtempSync(join(tmpdir(), 'fmoe-test-'));
const summaryFile = join(folder, 'summary.json');
const reporters = ['--reporter=default', `--reporter=${join(root, 'scripts/summary-reporter.mjs')}`];
const args = ['run', ...reporters, ...process.argv.slice(2)];
const env = { ...toolEnvironment(), FMOE_TEST_SUMMARY: summaryFile };
let code = await foreground(join(root, 'node_modules/.bin/vitest'), args, { cwd: root, env });

/** @type {import('./summary-reporter.mjs').Summary | undefined} */
const summary = readJsonIfAny(summaryFile);
rmSync(folder, { recursive: true, force: true });

if (!summary) {
  console.error(`The test runner ended with exit code ${code} before it could count.`);
  process.exitCode = code || 1;
} else {
  if (summary.skipped.length > 0) {
    console.log('\nSkipped, and why:');
    for (const { reason, count } of summary.skipped) console.log(`  ${count} x ${reason}`);
  }
  for (const problem of summary.problems) console.log(`\nOutside any test: ${problem}`);
  const skipped = summary.skipped.reduce((sum, { count }) => sum + count, 0);
  // What failed outside a test (a file that does not load, an unhandled error) counts as a failure too.
  const failed = summary.failed + summary.problems.length;
  if (summary.passed + failed === 0) console.log('\nNo test was executed.');
  if (failed > 0 || summary.passed === 0) code ||= 1;
  console.log(`\n${summary.passed} passed, ${failed} failed, ${skipped} skipped`);
  process.exitCode = code;
}
