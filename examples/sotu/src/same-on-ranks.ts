/**
 * Trains the main job's MoE model in float64 on one process and with `fmoe launch` on 4 ranks, with the same global batch, and goes on
 * from the checkpoint that the 4 ranks made half-way on 1, 2 and 3 ranks. Losses, norms of the gradient and evaluations must be
 * those of the one process within 1e-10; the exit code says whether they are. Takes about a minute on 2 cores.
 *
 *   --steps N   steps of the whole run; default 20
 *
 * Evaluations read the first 16,384 characters of the held-out parts.
 */
import { spawnSync } from 'node:child_process';
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { type Run, readRun } from '@fmoe/models/report';
import { dataFolder } from '../base.js';
import { prepareSotu } from './prepare.js';

const tolerance = 1e-10;
const { values } = parseArgs({ options: { steps: { type: 'string', default: '20' } } });
const steps = Number(values.steps);
const half = Math.floor(steps / 2);

const path = (relative: string): string => fileURLToPath(new URL(relative, import.meta.url));
const fmoe = [process.execPath, '--import', 'tsx', path('../../../packages/cli/src/main.ts')];
const folder = mkdtempSync(join(tmpdir(), 'fmoe-same-on-ranks-'));

/** Runs `fmoe train` with the main job's configuration in `runs/<name>`; on more than one rank under `fmoe launch`. */
function train(name: string, ranks: number, ...more: string[]): Run {
  const settings = {
    name,
    runs: folder,
    threads: 1,
    'data.valid': join(folder, 'valid.txt'),
    'data.test': join(folder, 'test.txt'),
    'training.precision': 'float64',
    'training.steps': steps,
    'logging.every': 1,
    'logging.tensorboard': false,
    'checkpoint.every': half,
  };
  const [node, ...args] = [
    ...fmoe,
    ...(ranks === 1 ? [] : ['launch', '--nproc-per-node', `${ranks}`, '--backend', 'mpi']),
    ...['train', '--config', path('../moe.config.ts')],
    ...Object.entries(settings).flatMap(([key, value]) => ['--set', `${key}=${value}`]),
    ...more,
  ];
  const { status, stdout, stderr } = spawnSync(node!, args, { cwd: path('../../../'), encoding: 'utf8' });
  if (status !== 0) throw new Error(`${args.join(' ')} ended with exit code ${status}:\n${stdout}${stderr}`);
  return readRun(join(folder, name));
}

/** Goes on from the checkpoint that the 4 ranks made half-way, in a copy of their run. */
function resume(ranks: number): Run {
  const name = `from-4-on-${ranks}`;
  cpSync(join(folder, 'on-4'), join(folder, name), { recursive: true });
  const run = train(name, ranks, '--resume', `${half}`);
  if (run.start.step !== half) throw new Error(`${name} went on from step ${run.start.step}, not ${half}`);
  return run;
}

const titles = ['   loss', 'balance loss', 'gradient norm', 'evaluation'];

/** What a run has measured after a step: for each title the figures of all records. */
function figures(run: Run, after: number): number[][] {
  const records = run.train.filter(({ step }) => step > after);
  return [
    records.map(({ loss }) => loss),
    records.map(({ balanceLoss }) => balanceLoss!),
    records.map(({ gradientNorm }) => gradientNorm),
    run.evaluations.filter(({ step }) => step === steps).map(({ loss }) => loss),
  ];
}

/** The largest relative difference; infinite where one has something that the other has not. */
function difference(values: readonly number[], expected: readonly number[]): number {
  if (values.length !== expected.length || values.length === 0) return Number.POSITIVE_INFINITY;
  // NaN is greater than nothing, but neither is it within the tolerance.
  return Math.max(...values.map((value, i) => Math.abs(value / expected[i]! - 1)));
}

/** Prints a row of the table; whether the run is within the tolerance. */
function compare(title: string, run: Run, alone: Run, after: number): boolean {
  const [own, expected] = [figures(run, after), figures(alone, after)];
  const differences = own.map((values, i) => difference(values, expected[i]!));
  const isSame = own[0]!.length === steps - after && differences.every((value) => value <= tolerance);
  const cells = differences.map((value, i) => value.toExponential(1).padStart(titles[i]!.length));
  console.log(
    `${title.padEnd(26)}  ${`${after + 1}-${steps}`.padStart(6)}  ${cells.join('  ')}  ${isSame ? 'same' : 'DIFFERENT'}`,
  );
  return isSame;
}

try {
  prepareSotu(dataFolder);
  for (const part of ['valid', 'test']) {
    writeFileSync(
      join(folder, `${part}.txt`),
      readFileSync(join(dataFolder, `${part}.txt`), 'utf8').slice(0, 16_384),
    );
  }
  const alone = train('alone', 1);
  console.log(
    `loss on one process: step 1 ${alone.train[0]!.loss}, step ${steps} ${alone.train.at(-1)!.loss}`,
  );
  console.log('Largest relative difference from one process:');
  console.log(`${'run'.padEnd(26)}  ${'steps'.padStart(6)}  ${titles.join('  ')}`);
  const same = [compare('4 ranks', train('on-4', 4), alone, 0)];
  for (const ranks of [1, 2, 3]) {
    same.push(compare(`from 4 ranks on ${ranks}`, resume(ranks), alone, half));
  }
  process.exitCode = same.every(Boolean) ? 0 : 1;
} finally {
  rmSync(folder, { recursive: true, force: true });
}
