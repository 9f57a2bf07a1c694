/**
 * How the work of many ranks scales: the all-to-all, one MoE layer, and a training step, over NCCL on the GPUs of this machine; the
 * layer also over MPI on CPUs. Every part has ranks of its own and a time limit, so that one that fails does not take the others
 * along, and leaves its figures in the file as soon as it has them.
 */
import { mkdirSync, writeFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { dirname } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { cuda } from '@fmoe/torch';
import { bandwidthSettings, measureBandwidth } from './bandwidth.js';
import { compareWithOneRank, formatLayerRow, layerRows } from './layer-scaling.js';
import { layerSettings } from './layer-shapes.js';
import { describeMachine, describeVersions, linkPeak, ncclFolder, worldSizes } from './machine.js';
import type { LayerFigures } from './ranks/layer.js';
import type { TrainingFigures } from './ranks/training.js';
import type { Report } from './report.js';
import { rankCommand, runRanks } from './run-ranks.js';
import { median, rounded, slowest } from './statistics.js';
import { trainingSettings } from './training-settings.js';

const { values } = parseArgs({
  options: {
    device: { type: 'string', default: cuda.isAvailable() ? 'cuda' : 'cpu' },
    json: { type: 'string' },
    parts: { type: 'string' },
    ranks: { type: 'string', default: '8' },
    minutes: { type: 'string', default: '7.5' },
    quick: { type: 'boolean', default: false },
  },
});
const device = values.device === 'cuda' ? 'cuda' : 'cpu';
const backend = device === 'cuda' ? 'nccl' : 'mpi';
// The other parts are meant for GPUs: benchmarks/exchange has the all-to-all over MPI.
const parts = (values.parts ?? (device === 'cuda' ? 'layer,bandwidth,training' : 'layer')).split(',');
const json = values.json ?? fileURLToPath(new URL(`../../results/multi-gpu-${device}.json`, import.meta.url));
const begin = performance.now();
const secondsLeft = (): number => Number(values.minutes) * 60 - (performance.now() - begin) / 1000;

const peak = device === 'cuda' ? linkPeak() : undefined;
const report: Report = {
  date: new Date().toISOString().slice(0, 10),
  machine: describeMachine(device),
  versions: describeVersions(),
  backend,
  ...(peak !== undefined && { linkPeakGigabytesPerSecond: peak }),
  settings: {},
  layer: [],
  bandwidth: [],
  training: [],
  failed: [],
  seconds: {},
};

function write(): void {
  mkdirSync(dirname(json), { recursive: true });
  writeFileSync(json, `${JSON.stringify(report, undefined, 2)}\n`);
}

/** Runs one part, unless there is no time for it any more; what goes wrong is noted. */
async function part(
  name: string,
  limitSeconds: number,
  body: (limit: number) => Promise<string[]>,
): Promise<void> {
  const limit = Math.min(limitSeconds, secondsLeft() - 5);
  const started = performance.now();
  let errors = [`not begun: ${secondsLeft().toFixed(0)} s were left`];
  try {
    if (limit > 15) errors = await body(limit);
  } catch (error) {
    errors = [String(error)];
  }
  for (const error of errors) {
    report.failed.push({ part: name, error });
    console.log(`${name} FAILED: ${error}`);
  }
  report.seconds[name] = rounded((performance.now() - started) / 1000, 3);
  write();
}

const sizes = worldSizes(device, Number(values.ranks));

async function layer(ranks: number, limitSeconds: number): Promise<string[]> {
  const settings = layerSettings(device, values.quick);
  report.settings['layer'] = settings;
  const command = rankCommand('layer.ts', settings);
  const { results, error } = await runRanks<LayerFigures[]>({ command, ranks, backend, limitSeconds });
  if (results.length === ranks) {
    const isCrowded = device === 'cpu' && ranks > availableParallelism();
    const rows = layerRows(results).map((row) => ({ ...row, ...(isCrowded && { oversubscribed: true }) }));
    report.layer.push(...rows);
    compareWithOneRank(report.layer);
    for (const row of rows) console.log(formatLayerRow(row));
  }
  return error === undefined ? [] : [error];
}

async function training(ranks: number, limitSeconds: number): Promise<string[]> {
  const settings = trainingSettings(device, values.quick);
  report.settings['training'] = settings;
  const command = rankCommand('training.ts', settings);
  const { results, error } = await runRanks<TrainingFigures>({ command, ranks, backend, limitSeconds });
  if (results.length === ranks && results.every(({ milliseconds }) => milliseconds.length > 0)) {
    const rounds = Math.min(...results.map(({ milliseconds }) => milliseconds.length));
    const time = median(slowest(results.map(({ milliseconds }) => milliseconds.slice(0, rounds))));
    const { tokens, parameters } = results[0]!;
    const one = report.training.find((row) => row.ranks === 1);
    const peaks = results.flatMap(({ peakMiB }) => peakMiB ?? []);
    report.training.push({
      ranks,
      milliseconds: rounded(time),
      tokensPerSecond: Math.round((tokens / time) * 1e3),
      ...(one && { efficiencyAgainstOneRank: rounded(one.milliseconds / time, 3) }),
      parameters,
      ...(peaks.length > 0 && { peakMiB: Math.max(...peaks) }),
    });
    console.log(`training W ${ranks}  ${time.toFixed(2)} ms  ${Math.round((tokens / time) * 1e3)} tokens/s`);
  }
  return error === undefined ? [] : [error];
}

async function bandwidth(ranks: number, limitSeconds: number): Promise<string[]> {
  const settings = bandwidthSettings(device, values.quick);
  report.settings['bandwidth'] = settings;
  const { rows, errors } = await measureBandwidth(settings, ranks, limitSeconds / 3, peak, ncclFolder());
  report.bandwidth = rows;
  for (const row of rows) {
    const speed = (value?: number): string => (value === undefined ? '-' : value.toFixed(2)).padStart(8);
    console.log(
      `all-to-all W ${ranks} ${String(row.bytes / 1024).padStart(7)} KiB  ours ${speed(row.ourGigabytesPerSecond)} GB/s  ` +
        `raw ${speed(row.rawGigabytesPerSecond)}  ratio ${row.ratio ?? '-'}  exchange ${speed(row.exchangeGigabytesPerSecond)}`,
    );
  }
  return errors;
}

write();
const most = Math.max(...sizes);
if (parts.includes('layer')) {
  for (const ranks of sizes) await part(`layer W ${ranks}`, 120, (limit) => layer(ranks, limit));
}
// One rank has nobody to send to.
if (parts.includes('bandwidth') && most > 1) {
  await part(`bandwidth W ${most}`, 120, (limit) => bandwidth(most, limit));
}
if (parts.includes('training')) {
  for (const ranks of sizes) await part(`training W ${ranks}`, 120, (limit) => training(ranks, limit));
}
write();
console.log(`${json}: ${((performance.now() - begin) / 1000).toFixed(0)} s`);
process.exitCode = report.failed.length > 0 ? 1 : 0;
