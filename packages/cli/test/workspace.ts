import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll } from 'vitest';

const made: string[] = [];

afterAll(() => {
  for (const folder of made.splice(0)) rmSync(folder, { recursive: true, force: true });
});

/** A folder with a small corpus and a configuration file for it; removed after the tests of the file. */
export function makeWorkspace(): { folder: string; config: string; run: string } {
  const folder = mkdtempSync(join(tmpdir(), 'fmoe-cli-'));
  made.push(folder);
  const words = ['the people', 'of the states', 'shall', 'congress', 'in 1790'];
  const text = Array.from({ length: 300 }, (_, i) => words[((i * i + 3 * i) % 7) % 5]).join(' ');
  for (const name of ['train', 'valid', 'test']) writeFileSync(join(folder, `${name}.txt`), text);
  const config = join(folder, 'tiny.config.ts');
  writeFileSync(
    config,
    `import { defineConfig } from '@fmoe/models/training';
const steps: number = 20;
export default defineConfig({
  name: 'tiny',
  runs: ${JSON.stringify(join(folder, 'runs'))},
  device: 'cpu',
  threads: 1,
  data: { kind: 'text', train: 'train.txt', valid: 'valid.txt', test: 'test.txt' },
  model: { kind: 'transformer-xl', nLayer: 1, nHead: 2, dModel: 16, dInner: 16, memLen: 8, moe: { numExpert: 4 } },
  training: { steps, batchSize: 2, tgtLen: 8, balanceWeight: 0.01, optimizer: { kind: 'adam', lr: 1e-2 } },
  evaluation: { every: 0, batchSize: 2 },
  logging: { every: 5 },
});
`,
  );
  return { folder, config, run: join(folder, 'runs', 'tiny') };
}
