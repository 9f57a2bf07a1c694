/**
 * Generates the typed surface of the tensor operators from the schemas of the linked libtorch.
 *
 *   npx tsx packages/torch/codegen/generate.ts          writes src/generated
 *   npx tsx packages/torch/codegen/generate.ts --check  fails when that would change a file
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { native } from '../src/native/index.js';
import { renderFiles } from './render.js';
import { selectSurface } from './select.js';

const folder = fileURLToPath(new URL('../src/generated/', import.meta.url));
const files = renderFiles(selectSurface(native()), native().torchVersion);
let stale = false;
for (const [name, text] of Object.entries(files)) {
  const path = join(folder, name);
  if (process.argv.includes('--check')) {
    if (readFileSync(path, 'utf8') !== text) {
      console.error(`${path} differs from what the linked libtorch gives: run the generator`);
      stale = true;
    }
  } else {
    writeFileSync(path, text);
    console.log(`${path}: ${text.length} characters`);
  }
}
process.exitCode = stale ? 1 : 0;
