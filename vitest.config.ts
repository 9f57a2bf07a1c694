import { availableParallelism } from 'node:os';
import { fileURLToPath } from 'node:url';
import { defineConfig } from 'vitest/config';

const packages = fileURLToPath(new URL('./packages/', import.meta.url));
const examples = fileURLToPath(new URL('./examples/', import.meta.url));

export default defineConfig({
  resolve: {
    // Tests run on the sources, so that no build is needed between an edit and its test.
    alias: [
      { find: /^@fmoe\/torch\/setup$/, replacement: `${packages}torch/setup/index.mjs` },
      { find: /^@fmoe\/([a-z]+)\/package\.json$/, replacement: `${packages}$1/package.json` },
      { find: /^@fmoe\/([a-z]+)\/([a-z-]+)$/, replacement: `${packages}$1/src/$2/index.ts` },
      { find: /^@fmoe\/([a-z]+)$/, replacement: `${packages}$1/src/index.ts` },
      { find: /^@fmoe-examples\/([a-z-]+)$/, replacement: `${examples}$1/src/index.ts` },
    ],
  },
  test: {
    include: [
      'packages/*/{src,setup,test,codegen}/**/*.test.{ts,mjs}',
      'examples/**/*.test.ts',
      'benchmarks/**/*.test.ts',
      'scripts/**/*.test.mjs',
    ],
    exclude: ['**/node_modules/**', '**/dist/**'],
    // libtorch keeps threads and global state: native addons need processes, not worker threads.
    pool: 'forks',
    maxWorkers: availableParallelism(),
    testTimeout: 60_000,
    hookTimeout: 120_000,
    // One intra-op thread a worker, or the workers fight over the cores.
    env: { OMP_NUM_THREADS: process.env['OMP_NUM_THREADS'] ?? '1' },
  },
});
