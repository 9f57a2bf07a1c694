import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';

/** A Python with torch and safetensors, for tests of what this package writes; named by FMOE_TEST_PYTHON. */
export const testPython = process.env['FMOE_TEST_PYTHON'];

/** Why tests that need Python are skipped, or undefined when they run. */
export const missingPython = testPython
  ? undefined
  : 'FMOE_TEST_PYTHON does not name a Python with torch and safetensors';

/** Runs a script of this folder, and throws with its output when it fails. */
export function runPython(script: string, args: readonly string[]): string {
  const path = fileURLToPath(new URL(script, import.meta.url));
  const { status, stdout, stderr, error } = spawnSync(testPython!, [path, ...args], { encoding: 'utf8' });
  if (status !== 0) throw new Error(`${script} ended with ${status}: ${error ?? ''}${stdout}${stderr}`);
  return stdout;
}
