/*
 * Trains the same larger Transformer-XL in plain PyTorch and here, on the same batches from the same weights, and prints how
 * far the losses are apart:
 *
 *   npx tsx packages/models/test/parity.ts [--python PATH] [--threads N]
 *
 * The Python must have a complete PyTorch, safetensors and numpy. The exit code is 1 when a difference exceeds its limit.
 */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { loadSafetensors, setNumThreads, type Tensor } from '@fmoe/torch';
import { loadedModel, type TrainTrace, type TwinConfig, trainSteps } from './fixture-runs.js';

const { values: flags } = parseArgs({
  options: { python: { type: 'string', default: 'python3' }, threads: { type: 'string', default: '2' } },
});
const threads = Number(flags.threads);
const run = { steps: 20, batch: 8, tgtLen: 32, lr: 1e-3, seed: 1, threads };
const base: TwinConfig = {
  n_token: 91,
  n_layer: 3,
  n_head: 4,
  d_model: 128,
  d_head: 32,
  d_inner: 512,
  mem_len: 32,
  ext_len: 0,
  dropout: 0,
  dropatt: 0,
  pre_lnorm: false,
  same_length: false,
  clamp_len: -1,
  num_expert: 0,
  top_k: 2,
  balance_weight: 0.01,
};
const configs: Record<string, TwinConfig> = {
  dense: base,
  'dense, pre-norm, same length, clamped': {
    ...base,
    pre_lnorm: true,
    same_length: true,
    clamp_len: 24,
  },
  'experts 8, top-2': { ...base, d_inner: 256, num_expert: 8 },
  'experts 8, top-2, pre-norm': { ...base, d_inner: 256, num_expert: 8, pre_lnorm: true },
};
const limits = { float64: 1e-10, float32: 1e-4 } as const;
type RunDType = keyof typeof limits;

/** What the Python half wrote. */
interface Reference {
  folder: string;
  losses: Record<RunDType, number[]>;
  stream: Tensor;
  routing: Record<string, Tensor>;
}

function runReference(folder: string, config: TwinConfig): Reference {
  writeFileSync(join(folder, 'request.json'), JSON.stringify({ ...run, config }));
  const script = new URL('./torch-twin/reference_run.py', import.meta.url).pathname;
  execFileSync(flags.python, [script, folder], { stdio: ['ignore', 'inherit', 'inherit'] });
  return {
    folder,
    losses: JSON.parse(readFileSync(join(folder, 'losses.json'), 'utf8')) as Reference['losses'],
    stream: loadSafetensors(join(folder, 'stream.safetensors')).tensors['stream']!,
    routing: config.num_expert > 0 ? loadSafetensors(join(folder, 'routing.safetensors')).tensors : {},
  };
}

function train(reference: Reference, config: TwinConfig, dtype: RunDType, routing?: Tensor): TrainTrace {
  const model = loadedModel(config, join(reference.folder, 'weights.safetensors'), dtype);
  const { stream } = reference;
  const trace = trainSteps(model, {
    ...run,
    stream,
    extLen: config.ext_len,
    balanceWeight: config.balance_weight,
    routing,
  });
  model.dispose();
  return trace;
}

/** How many slots went to another expert than in the recorded run, and in which step first. */
function countFlips(trace: TrainTrace, recorded: Tensor): { flips: number; slots: number; first: number } {
  const expected = Array.from(recorded.to('int64').data() as BigInt64Array, Number);
  const actual = trace.choices.flat(2);
  const wrong = actual.flatMap((expert, slot) => (expert === expected[slot] ? [] : [slot]));
  const first = wrong.length === 0 ? -1 : Math.floor(wrong[0]! / (actual.length / run.steps));
  return { flips: wrong.length, slots: actual.length, first };
}

function worstRelative(actual: readonly number[], expected: readonly number[]): number {
  return Math.max(...actual.map((value, step) => Math.abs(value - expected[step]!) / expected[step]!));
}

/** Prints one line; whether the difference is within its limit. */
function report(label: string, trace: TrainTrace, expected: readonly number[], dtype: RunDType): boolean {
  const worst = worstRelative(trace.losses, expected);
  const fine = worst <= limits[dtype];
  const first = trace.losses[0]!.toFixed(4);
  const last = trace.losses.at(-1)!.toFixed(4);
  console.log(
    `${label.padEnd(52)} ${dtype}  loss ${first} -> ${last}  worst relative difference ${worst.toExponential(1)} ` +
      `(limit ${limits[dtype]}) ${fine ? 'ok' : 'TOO FAR'}`,
  );
  return fine;
}

setNumThreads(threads);
let allFine = true;
for (const [label, config] of Object.entries(configs)) {
  const folder = mkdtempSync(join(tmpdir(), 'fmoe-parity-'));
  try {
    const reference = runReference(folder, config);
    for (const dtype of ['float64', 'float32'] as const) {
      const expected = reference.losses[dtype];
      const trace = train(reference, config, dtype);
      const recorded = reference.routing[dtype];
      const { flips, slots, first } = recorded
        ? countFlips(trace, recorded)
        : { flips: 0, slots: 0, first: -1 };
      if (recorded === undefined || flips === 0) {
        allFine = report(label, trace, expected, dtype) && allFine;
        continue;
      }
      // In float32 rounding decides between near-equal experts; in float64 that would be a mistake.
      report(`${label}, own routing`, trace, expected, dtype);
      console.log(
        `  ${flips} of ${slots} slots went to another expert, first in step ${first}; on the recorded routing:`,
      );
      const forced = train(reference, config, dtype, recorded);
      allFine =
        report(`${label}, recorded routing`, forced, expected, dtype) && dtype === 'float32' && allFine;
    }
  } finally {
    rmSync(folder, { recursive: true });
  }
}
process.exitCode = allFine ? 0 : 1;
