/**
 * Compares gates on the main job's data at equal compute: every token passes as many multiplications, through two experts of
 * inner width 256 or one of 512.
 *
 *   --steps N        steps of each run; default 1400
 *   --gates a,b      only these; the table is made of all runs that are there
 *   --json FILE      writes the table's rows with the machine they ran on
 */
import { existsSync, writeFileSync } from 'node:fs';
import { availableParallelism, cpus } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { worstImbalance } from '@fmoe/models';
import { lateExpertLoad, meanThroughput, type Run, readRun } from '@fmoe/models/report';
import { type Config, ProgressSink, resolveConfig, runTraining } from '@fmoe/models/training';
import { getNumThreads, libtorchVersion } from '@fmoe/torch';
import { dataFolder, runsFolder, sotu } from '../base.js';
import { prepareSotu } from './prepare.js';
import { finalLoss } from './table.js';

type Model = Pick<Config['model'], 'dInner' | 'moe'>;

const two = { numExpert: 8, topK: 2 } as const;

/** Without the gates that need many machines, do not learn, or choose tokens by what comes later in the text. */
const models: Record<string, Model> = {
  naive: { dInner: 256, moe: { ...two, gate: 'naive' } },
  noisy: { dInner: 256, moe: { ...two, gate: 'noisy' } },
  gshard: { dInner: 256, moe: { ...two, gate: 'gshard' } },
  switch: { dInner: 512, moe: { numExpert: 8, topK: 1, gate: 'switch' } },
  topk: { dInner: 256, moe: { ...two, gate: 'topk' } },
  'bias-balanced': { dInner: 256, moe: { ...two, gate: 'bias-balanced' } },
  'group-limited': {
    dInner: 256,
    moe: { ...two, gate: 'group-limited', gateOptions: { numGroups: 4, groupTopK: 2 } },
  },
  dc: { dInner: 256, moe: { ...two, gate: 'dc' } },
};

/** What a run came to. */
interface Row {
  gate: string;
  steps: number;
  validBitsPerCharacter: number | undefined;
  testBitsPerCharacter: number | undefined;
  /** Largest over mean load of the most uneven layer, over the last quarter of the steps. */
  imbalance: number | undefined;
  /** Mean share of slots that were dropped, over layers and the last quarter of the steps. */
  dropped: number;
  tokensPerSecond: number;
}

const runName = (gate: string): string => `gate-study-${gate}`;

function summarize(gate: string, run: Run): Row {
  const late = run.train.filter(({ step }) => step > 0.75 * run.start.steps);
  const dropped = late.flatMap(({ droppedShare }) => droppedShare ?? []).map((share) => share ?? 0);
  return {
    gate,
    steps: run.train.at(-1)!.step,
    validBitsPerCharacter: finalLoss(run, 'valid'),
    testBitsPerCharacter: finalLoss(run, 'test'),
    imbalance: worstImbalance(lateExpertLoad(run)),
    dropped: dropped.reduce((sum, share) => sum + share, 0) / Math.max(1, dropped.length),
    tokensPerSecond: meanThroughput(run),
  };
}

function markdown(rows: readonly Row[]): string {
  const lines = rows.map((row) => [
    row.gate,
    row.validBitsPerCharacter?.toFixed(3) ?? '-',
    row.testBitsPerCharacter?.toFixed(3) ?? '-',
    row.imbalance?.toFixed(2) ?? '-',
    `${(100 * row.dropped).toFixed(1)} %`,
    row.tokensPerSecond.toFixed(0),
  ]);
  const head = ['gate', 'valid bpc', 'test bpc', 'imbalance', 'dropped', 'tokens/s'];
  return [head, head.map(() => '---'), ...lines].map((cells) => `| ${cells.join(' | ')} |`).join('\n');
}

const { values } = parseArgs({
  options: {
    steps: { type: 'string', default: '1400' },
    gates: { type: 'string', default: Object.keys(models).join(',') },
    json: { type: 'string' },
  },
});
prepareSotu(dataFolder);
for (const gate of values.gates.split(',')) {
  const model = models[gate];
  if (model === undefined) throw new Error(`no gate '${gate}'; there are ${Object.keys(models).join(', ')}`);
  const base = sotu(runName(gate), model);
  const config = resolveConfig({ ...base, training: { ...base.training, steps: Number(values.steps) } });
  console.log(`\n${gate}`);
  await runTraining(config, { overwrite: true, sinks: [new ProgressSink()] });
}
const rows = Object.keys(models)
  .filter((gate) => existsSync(join(runsFolder, runName(gate))))
  .map((gate) => summarize(gate, readRun(join(runsFolder, runName(gate)))));
console.log(`\n${markdown(rows)}`);
if (values.json !== undefined) {
  const machine = { cpu: cpus()[0]?.model, cores: availableParallelism(), threads: getNumThreads() };
  writeFileSync(values.json, `${JSON.stringify({ machine, libtorch: libtorchVersion(), rows }, null, 2)}\n`);
}
