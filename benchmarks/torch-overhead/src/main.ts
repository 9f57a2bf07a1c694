import { mkdirSync, writeFileSync } from 'node:fs';
import { availableParallelism, cpus, totalmem } from 'node:os';
import { fileURLToPath } from 'node:url';
import type { Request, TransformerShape } from './protocol.js';
import { Worker } from './worker.js';

/** A case with the number of threads, the ratio that it must keep, and how often it is measured. */
interface Case extends Request {
  threads: number;
  limit: number;
  pairs: number;
}

const cores = availableParallelism();
const shape = (num_expert: number, d_inner: number): TransformerShape => ({
  config: {
    n_token: 91,
    n_layer: 3,
    n_head: 4,
    d_model: 128,
    d_head: 32,
    d_inner,
    mem_len: 64,
    num_expert,
    top_k: 2,
    balance_weight: 0.01,
  },
  length: 64,
  batch: 16,
});

const cases: readonly Case[] = [
  { case: 'add', iterations: 2000, threads: 1, limit: 0.85, pairs: 41 },
  { case: 'add-autograd', iterations: 2000, threads: 1, limit: 0.85, pairs: 41 },
  { case: 'mm', iterations: 2000, threads: 1, limit: 0.85, pairs: 41 },
  { case: 'mlp-step', iterations: 100, threads: 1, limit: 0.85, pairs: 41 },
  {
    case: 'transformer-xl-dense',
    iterations: 4,
    threads: cores,
    limit: 1,
    pairs: 15,
    transformer: shape(0, 512),
  },
  {
    case: 'transformer-xl-moe',
    iterations: 4,
    threads: cores,
    limit: 1,
    pairs: 15,
    transformer: shape(8, 256),
  },
];

const median = (values: readonly number[]): number => {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = Math.floor(sorted.length / 2);
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
};

const folder = fileURLToPath(new URL('..', import.meta.url));
const python = process.env['FMOE_PYTHON'] ?? 'python3';

async function measure(chosen: Case) {
  const settings = JSON.stringify({ threads: chosen.threads });
  const node = new Worker(process.execPath, ['--import', 'tsx', 'src/node-worker.ts', settings], folder);
  const other = new Worker(python, ['python/worker.py', settings], folder);
  const versions = { ...((await other.read()) as object), ...((await node.read()) as object) };
  const { case: name, iterations, transformer } = chosen;
  const request: Request = { case: name, iterations, ...(transformer === undefined ? {} : { transformer }) };
  for (let i = 0; i < 3; i++) {
    await node.measure(request);
    await other.measure(request);
  }
  const pairs: { fmoe: number; python: number }[] = [];
  for (let i = 0; i < chosen.pairs; i++) {
    // Who goes first alternates: a drift of the machine must not favour one side.
    const first = i % 2 === 0 ? await node.measure(request) : await other.measure(request);
    const second = i % 2 === 0 ? await other.measure(request) : await node.measure(request);
    pairs.push(i % 2 === 0 ? { fmoe: first, python: second } : { fmoe: second, python: first });
  }
  node.close();
  other.close();
  const ratios = pairs.map((pair) => pair.fmoe / pair.python);
  return {
    versions,
    row: {
      case: name,
      threads: chosen.threads,
      pairs: chosen.pairs,
      fmoeMicroseconds: median(pairs.map((pair) => pair.fmoe)),
      pythonMicroseconds: median(pairs.map((pair) => pair.python)),
      ratio: median(ratios),
      ratioQuartiles: [
        median(ratios.filter((r) => r <= median(ratios))),
        median(ratios.filter((r) => r >= median(ratios))),
      ],
      limit: chosen.limit,
    },
  };
}

const only = process.argv.slice(2);
const rows = [];
let versions = {};
for (const chosen of cases) {
  if (only.length > 0 && !only.includes(chosen.case)) continue;
  const measured = await measure(chosen);
  versions = measured.versions;
  const { row } = measured;
  rows.push(row);
  console.log(
    `${row.case.padEnd(22)} fmoe ${row.fmoeMicroseconds.toFixed(2).padStart(10)} us   python ` +
      `${row.pythonMicroseconds.toFixed(2).padStart(10)} us   ratio ${row.ratio.toFixed(3)} ` +
      `[${row.ratioQuartiles.map((r) => r.toFixed(3)).join(', ')}]   limit ${row.limit}`,
  );
}
if (only.length === 0) {
  const results = fileURLToPath(new URL('../../results/', import.meta.url));
  mkdirSync(results, { recursive: true });
  const machine = { cpu: cpus()[0]!.model, cores, memoryGiB: Math.round(totalmem() / 2 ** 30) };
  writeFileSync(
    `${results}torch-overhead.json`,
    `${JSON.stringify({ date: new Date().toISOString().slice(0, 10), machine, versions, rows }, null, 2)}\n`,
  );
}
process.exitCode = rows.some((row) => row.ratio > row.limit) ? 1 : 0;
