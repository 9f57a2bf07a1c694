// Runs the tests of the kernels with their CPU library built with AddressSanitizer: a read or write outside of a tensor ends
// the run with a report. libtorch and Node are as always, so only what the kernels do themselves is checked.
//
//   node scripts/address-sanitizer.mjs [arguments of vitest, default: the tests of packages/kernels]
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { asSetupError } from '../packages/torch/setup/errors.mjs';
import { ask } from '../packages/torch/setup/exec.mjs';
import { buildFolder, buildNative, createLog, findLibtorch } from '../packages/torch/setup/index.mjs';
import { ensureBuildTools } from '../packages/torch/setup/python-env.mjs';
import { foreground } from './foreground.mjs';
import { root, toolEnvironment } from './workspace.mjs';

const kernels = join(root, 'packages/kernels');
const log = createLog();

/** @returns {string | undefined} the sanitizer's runtime, which the compiler knows by its bare name where it lacks it */
function findRuntime() {
  const path = ask(process.env['CXX'] || 'g++', ['-print-file-name=libasan.so']);
  return path?.includes('/') && existsSync(path) ? path : undefined;
}

const runtime = findRuntime();
if (!runtime) {
  console.error('The C++ compiler has no AddressSanitizer (libasan.so).');
  process.exit(1);
}
try {
  await buildNative(kernels, {
    libtorch: findLibtorch(),
    tools: () => ensureBuildTools({ log }),
    log,
    build: join(buildFolder(kernels), 'sanitized'),
    definitions: { FMOE_SANITIZE: 'ON' },
  });
} catch (error) {
  const known = asSetupError(error);
  if (!known) throw error;
  console.error(known.message);
  process.exit(1);
}
const given = process.argv.slice(2);
const tests = given.length > 0 ? given : ['packages/kernels'];
const args = [
  join(root, 'node_modules/vitest/vitest.mjs'),
  'run',
  '--config',
  join(kernels, 'test/sanitized.config.ts'),
  ...tests,
];
const env = {
  ...toolEnvironment(),
  FMOE_SANITIZER_RUNTIME: runtime,
  FMOE_RANDOM_CASES: '60',
  // Node and libtorch keep memory until the process ends, and free in one library what another one allocated.
  ASAN_OPTIONS: 'detect_leaks=0:alloc_dealloc_mismatch=0',
};
process.exitCode = await foreground(process.execPath, args, { cwd: root, env });
