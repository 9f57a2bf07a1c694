import { spawnSync } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { availableParallelism, cpus, totalmem } from 'node:os';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { cuda, libtorchVersion, manualSeed, setNumThreads, tidy } from '@fmoe/torch';
import { makeCases, type Pass, type Sizes } from './cases.js';

const { values } = parseArgs({
  options: {
    device: { type: 'string', default: cuda.isAvailable() ? 'cuda' : 'cpu' },
    threads: { type: 'string', default: String(availableParallelism()) },
    pairs: { type: 'string', default: '31' },
  },
});
const { device } = values;
const isGpu = device.startsWith('cuda');
/** The first has the limit; the others show what a small expert and few tokens, where the host is what counts, make of it. */
const sizesOfGpu: Sizes[] = [
  { tokens: 16384, dModel: 1024, dHidden: 4096, numExpert: 64, topK: 2, dtype: 'bfloat16' },
  { tokens: 16384, dModel: 1024, dHidden: 1024, numExpert: 64, topK: 2, dtype: 'bfloat16' },
  { tokens: 64, dModel: 1024, dHidden: 4096, numExpert: 8, topK: 2, dtype: 'bfloat16' },
];
const sizesOfCpu: Sizes[] = [
  { tokens: 1024, dModel: 256, dHidden: 512, numExpert: 8, topK: 2, dtype: 'float32' },
];
const limit = 1.05;

const quantile = (numbers: readonly number[], share: number): number => {
  const sorted = [...numbers].sort((a, b) => a - b);
  return sorted[Math.round(share * (sorted.length - 1))]!;
};
const median = (numbers: readonly number[]): number => quantile(numbers, 0.5);

/**
 * Milliseconds: of the clock on a GPU, which has the machine to itself; of the process's own time on the CPU, which others
 * that share the machine disturb less.
 */
function now(): number {
  if (isGpu) return performance.now();
  const { user, system } = process.cpuUsage();
  return (user + system) / 1000;
}

/** Milliseconds of a pass, the device's work included. */
function time(work: (pass: Pass) => void, pass: Pass, count: number): number {
  if (isGpu) cuda.synchronize();
  const begin = now();
  for (let i = 0; i < count; i++) work(pass);
  if (isGpu) cuda.synchronize();
  return (now() - begin) / count;
}

function gpuName(): string | undefined {
  const { stdout } = spawnSync('nvidia-smi', ['--query-gpu=name', '--format=csv,noheader'], {
    encoding: 'utf8',
  });
  return stdout?.split('\n')[0];
}

setNumThreads(Number(values.threads));
manualSeed(1);

function measure(sizes: Sizes) {
  const { operator, ...others } = makeCases(sizes, device);
  const rows = [];
  for (const pass of ['forward', 'training'] as const) {
    for (const [name, work] of Object.entries(others)) {
      for (const each of [operator!, work]) time(each, pass, 3);
      // About 50 ms a measurement.
      const count = Math.max(1, Math.round(50 / time(operator!, pass, 3)));
      const pairs = Array.from({ length: Number(values.pairs) }, (_, i) => {
        // Who goes first alternates: a drift of the machine must not favour one side.
        const first = time(i % 2 === 0 ? operator! : work, pass, count);
        const second = time(i % 2 === 0 ? work : operator!, pass, count);
        return i % 2 === 0 ? [first, second] : [second, first];
      }) as [number, number][];
      const ratios = pairs.map(([bare, whole]) => whole / bare);
      const row = {
        case: name,
        pass,
        operatorMilliseconds: median(pairs.map(([bare]) => bare)),
        milliseconds: median(pairs.map(([, whole]) => whole)),
        ratio: median(ratios),
        ratioQuartiles: [quantile(ratios, 0.25), quantile(ratios, 0.75)],
      };
      rows.push(row);
      console.log(
        `${pass.padEnd(9)} ${name.padEnd(27)} ${row.milliseconds.toFixed(3).padStart(9)} ms   operator ` +
          `${row.operatorMilliseconds.toFixed(3).padStart(9)} ms   ratio ${row.ratio.toFixed(3)} ` +
          `[${row.ratioQuartiles.map((ratio) => ratio.toFixed(3)).join(', ')}]`,
      );
    }
  }
  return rows;
}

const measured = (isGpu ? sizesOfGpu : sizesOfCpu).map((sizes) => {
  console.log(JSON.stringify(sizes));
  return { sizes, rows: tidy(() => measure(sizes)) };
});
const results = fileURLToPath(new URL('../../results/', import.meta.url));
mkdirSync(results, { recursive: true });
const machine = {
  ...(isGpu && { gpu: gpuName() }),
  cpu: cpus()[0]!.model,
  cores: availableParallelism(),
  threads: Number(values.threads),
  memoryGiB: Math.round(totalmem() / 2 ** 30),
};
writeFileSync(
  `${results}layer-overhead-${isGpu ? 'cuda' : 'cpu'}.json`,
  `${JSON.stringify(
    {
      date: new Date().toISOString().slice(0, 10),
      machine,
      versions: { torch: libtorchVersion(), node: process.version },
      ...(isGpu && { limit }),
      measured,
    },
    null,
    2,
  )}\n`,
);
process.exitCode =
  isGpu && measured[0]!.rows.some((row) => row.case === 'layer' && row.ratio > limit) ? 1 : 0;
