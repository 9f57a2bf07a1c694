/** Set-up of the test runs under AddressSanitizer: opens the kernels that were built with it instead of the usual ones. */

import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { openKernels } from '../src/load.js';

const folder = fileURLToPath(new URL('../native/build/sanitized', import.meta.url));
openKernels(folder);

// Without these two in the process the run would pass and say nothing.
const mapped = readFileSync('/proc/self/maps', 'utf8');
for (const library of ['/libasan.so', join(folder, 'libfmoe_kernels.so')]) {
  if (!mapped.includes(library)) throw new Error(`${library} is not loaded: nothing would be checked`);
}
