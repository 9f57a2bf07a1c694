import { fileURLToPath } from 'node:url';
import { mergeConfig } from 'vitest/config';
import base from '../../../vitest.config.js';

// The sanitizer's runtime must be the first library of a process. The workers inherit this; vitest itself runs without it.
process.env['LD_PRELOAD'] = process.env['FMOE_SANITIZER_RUNTIME'];

export default mergeConfig(base, {
  root: fileURLToPath(new URL('../../..', import.meta.url)),
  test: { setupFiles: [fileURLToPath(new URL('./sanitized.ts', import.meta.url))], testTimeout: 300_000 },
});
