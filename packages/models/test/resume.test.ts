import { spawnSync } from 'node:child_process';
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import type { ResolvedConfig } from '../src/training/index.js';
import { tinyConfig, tinyFolder } from './support/tiny-run.js';

const root = fileURLToPath(new URL('../../../', import.meta.url));
const child = fileURLToPath(new URL('./support/train-child.ts', import.meta.url));

function train(config: ResolvedConfig, ...args: string[]) {
  const file = join(config.runs, `${config.name}.json`);
  mkdirSync(config.runs, { recursive: true });
  writeFileSync(file, JSON.stringify(config));
  const result = spawnSync(process.execPath, ['--import', 'tsx', child, file, ...args], {
    cwd: root,
    encoding: 'utf8',
    env: { ...process.env, OMP_NUM_THREADS: '1' },
  });
  return { signal: result.signal, status: result.status, output: result.stdout + result.stderr };
}

function finalBytes(config: ResolvedConfig, name: string): string {
  const folder = join(config.runs, config.name, 'checkpoints', 'step-00000040');
  return readFileSync(join(folder, name)).toString('base64');
}

/** Losses and other figures that do not depend on the clock. */
function measured(config: ResolvedConfig) {
  return readFileSync(join(config.runs, config.name, 'metrics.jsonl'), 'utf8')
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as Record<string, unknown>)
    .filter(({ kind }) => kind !== 'start')
    .map(({ seconds: _, tokensPerSecond: __, ...rest }) => rest);
}

// Three processes a case, each of which loads libtorch.
describe('a run that is killed and resumed', { timeout: 240_000 }, () => {
  it.each([
    ['in one chunk', {}],
    [
      'in two chunks, with AdamW and a plateau schedule',
      {
        batchChunk: 2,
        optimizer: { kind: 'adamw', lr: 3e-3, weightDecay: 0.01 },
        schedule: { kind: 'dev_perf', warmupSteps: 5 },
      },
    ],
  ] as const)('ends with the same bits as one that is not (%s)', (_, training) => {
    const folder = tinyFolder();
    const changes = { training, evaluation: { every: 8 }, checkpoint: { every: 20, keep: 3 } };
    const straight = { ...tinyConfig(folder, changes), name: 'straight' };
    expect(train(straight)).toMatchObject({ status: 0 });

    const killed = { ...tinyConfig(folder, changes), name: 'killed' };
    expect(train(killed, '', '21')).toMatchObject({ signal: 'SIGKILL' });
    const checkpoints = join(killed.runs, 'killed', 'checkpoints');
    expect(readdirSync(checkpoints).sort().at(-1)).toBe('step-00000020');
    const resumed = train(killed, 'last');
    expect(resumed).toMatchObject({ status: 0 });
    expect(JSON.parse(resumed.output)).toMatchObject({ finished: true, step: 40 });

    for (const file of ['model.safetensors', 'optimizer.safetensors', 'run.safetensors']) {
      expect(finalBytes(killed, file)).toBe(finalBytes(straight, file));
    }
    expect(measured(killed)).toEqual(measured(straight));
  });

  it('differs with another seed, so that the comparison can fail', () => {
    const folder = tinyFolder();
    const config = (name: string, seed: number) => ({ ...tinyConfig(folder), name, seed });
    expect(train(config('a', 1))).toMatchObject({ status: 0 });
    expect(train(config('b', 2))).toMatchObject({ status: 0 });
    expect(finalBytes(config('a', 1), 'model.safetensors')).not.toBe(
      finalBytes(config('b', 2), 'model.safetensors'),
    );
  });
});
