/**
 * Compares gates on the main job's data at equal compute: every token passes as many multiplications, through two experts of
 * inner width 256 or one of 512. Each gate trains once from each seed, each run in a process of its own on the CPU.
 *
 *   --steps N        steps of each run; default 1400
 *   --gates a,b      only these
 *   --seeds a,b      default 1111,1112
 *   --jobs N         runs at a time; default 1
 *   --threads N      threads of each run; default: the cores shared out among the jobs
 *   --table          trains nothing: makes the table of the runs that are there
 *   --json FILE      writes the table's rows, each run's figures and the machine
 *
 * Tokens/s are comparable only between runs that had the same neighbours: train all that you compare in one call, with as many
 * runs as fit `--jobs` a whole number of times, and nothing else on those cores.
 */
import { spawn } from 'node:child_process';
import { existsSync, writeFileSync } from 'node:fs';
import { availableParallelism, cpus } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { metricsFile, readRun } from '@fmoe/models/report';
import { type Config, ProgressSink, resolveConfig, runTraining } from '@fmoe/models/training';
import { libtorchVersion } from '@fmoe/torch';
import { dataFolder, runsFolder, sotu } from '../base.js';
import { gateTable, type Row, summarize, summarizeRun } from './gate-table.js';
import { prepareSotu } from './prepare.js';

type Model = Pick<Config['model'], 'dInner' | 'moe'>;

const two = { numExpert: 8, topK: 2 } as const;

/**
 * Without the gates that need many machines, do not learn, or choose tokens by what comes later in the text. Two of them are not as
 * by default, because they would be the naive gate again: a softmax over all experts, divided by the sum of the K, is the softmax
 * over the K; and the K best experts are always within the K best groups.
 */
const models: Record<string, Model> = {
  naive: { dInner: 256, moe: { ...two, gate: 'naive' } },
  noisy: { dInner: 256, moe: { ...two, gate: 'noisy' } },
  gshard: { dInner: 256, moe: { ...two, gate: 'gshard' } },
  dc: { dInner: 256, moe: { ...two, gate: 'dc' } },
  switch: { dInner: 512, moe: { numExpert: 8, topK: 1, gate: 'switch' } },
  topk: { dInner: 256, moe: { ...two, gate: 'topk', gateOptions: { scoreFunction: 'sigmoid' } } },
  'bias-balanced': {
    dInner: 256,
    moe: { ...two, gate: 'bias-balanced', gateOptions: { scoreFunction: 'sigmoid' } },
  },
  'group-limited': {
    dInner: 256,
    moe: { ...two, gate: 'group-limited', gateOptions: { numGroups: 2, groupTopK: 1 } },
  },
};

const aboutThroughput =
  'tokensPerSecond is that of one run among its neighbours: comparable between runs of one call, and roughly only.';

const { values } = parseArgs({
  options: {
    steps: { type: 'string', default: '1400' },
    gates: { type: 'string', default: Object.keys(models).join(',') },
    seeds: { type: 'string', default: '1111,1112' },
    jobs: { type: 'string', default: '1' },
    threads: { type: 'string' },
    table: { type: 'boolean', default: false },
    json: { type: 'string' },
    // One run, in this process: how the study starts each of them.
    run: { type: 'boolean', default: false },
  },
});
const gates = values.gates.split(',');
const seeds = values.seeds.split(',').map(Number);
const jobs = Number(values.jobs);
const threads = Number(values.threads ?? Math.max(1, Math.floor(availableParallelism() / jobs)));
if (!(jobs >= 1)) throw new Error(`--jobs ${values.jobs}: expected a number of at least 1`);
const unknown = gates.find((gate) => models[gate] === undefined);
if (unknown !== undefined) {
  throw new Error(`no gate '${unknown}'; there are ${Object.keys(models).join(', ')}`);
}

const runName = (gate: string, seed: number): string => `gate-study-${gate}-${seed}`;

async function train(gate: string, seed: number): Promise<void> {
  const { training, ...base } = sotu(runName(gate, seed), models[gate]!);
  const steps = Number(values.steps);
  const config = resolveConfig({
    ...base,
    seed,
    device: 'cpu',
    threads,
    training: { ...training, steps },
    evaluation: { ...base.evaluation, every: steps },
    checkpoint: { every: steps },
  });
  await runTraining(config, { overwrite: true, sinks: jobs === 1 ? [new ProgressSink()] : [] });
}

/** The same in a process of its own; whether it succeeded. */
function start(gate: string, seed: number): Promise<boolean> {
  const options = Object.entries({ gates: gate, seeds: seed, threads, jobs, steps: values.steps });
  const asArguments = options.map(([name, value]) => `--${name}=${value}`);
  const before = performance.now();
  return new Promise((resolve, reject) => {
    spawn(process.execPath, [...process.execArgv, process.argv[1]!, '--run', ...asArguments], {
      stdio: 'inherit',
    })
      .on('error', reject)
      .on('exit', (status) => {
        const seconds = ((performance.now() - before) / 1000).toFixed(0);
        console.log(`${gate}, seed ${seed}: ${status === 0 ? 'done' : 'failed'} after ${seconds} s`);
        resolve(status === 0);
      });
  });
}

async function trainAll(): Promise<void> {
  prepareSotu(dataFolder);
  const waiting = seeds.flatMap((seed) => gates.map((gate) => [gate, seed] as const));
  const worker = async (): Promise<void> => {
    for (let next = waiting.shift(); next !== undefined; next = waiting.shift()) {
      if (!(await start(...next))) process.exitCode = 1;
    }
  };
  await Promise.all(Array.from({ length: jobs }, worker));
}

function readRows(): Row[] {
  return gates.flatMap((gate) => {
    const folders = seeds.map((seed) => join(runsFolder, runName(gate, seed)));
    const runs = folders.filter((folder) => existsSync(join(folder, metricsFile))).map(readRun);
    return runs.length === 0 ? [] : [summarize(gate, runs.map(summarizeRun))];
  });
}

function report(): void {
  const rows = readRows();
  console.log(`\n${gateTable(rows)}`);
  if (values.json === undefined) return;
  const machine = { cpu: cpus()[0]?.model, cores: availableParallelism(), libtorch: libtorchVersion() };
  // Unknown of runs that an earlier call made.
  const runsAtATime = values.table ? null : Math.min(jobs, gates.length * seeds.length);
  const content = { machine, runsAtATime, note: aboutThroughput, rows };
  writeFileSync(values.json, `${JSON.stringify(content, null, 2)}\n`);
}

if (values.run) {
  await train(gates[0]!, seeds[0]!);
} else {
  if (!values.table) await trainAll();
  report();
}
