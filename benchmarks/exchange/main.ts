/**
 * Latency and bandwidth of our all-to-all against raw MPI, 1 KiB to 64 MiB, on 2 and 4 ranks of this machine.
 *
 * Both sides run in turn, several times; the figure to read is the median of the ratios of neighbouring runs. On both, `reused`
 * writes into memory that is there, and `fresh` allocates the result of each call.
 */
import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { availableParallelism, cpus, tmpdir, totalmem } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { findMpirun, mpirunArguments } from '@fmoe/comm';
import { findMpis, type Mpi } from '@fmoe/torch/setup';

const here = fileURLToPath(new URL('.', import.meta.url));
const rounds = Number(process.env['ROUNDS'] ?? 7);
const target = 0.9;
const targetFrom = 256 * 1024;

const sizes = [1, 4, 16, 64, 256, 1024, 4096, 16384, 65536].map((kibibytes) => kibibytes * 1024);
const iterationsFor = (bytes: number): number => Math.max(8, Math.min(2000, Math.round(2 ** 27 / bytes)));

function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  return (sorted[(sorted.length - 1) >> 1]! + sorted[sorted.length >> 1]!) / 2;
}

/** By size the microseconds of a call, one figure for each way of calling. */
type Figures = Map<number, readonly number[]>;

function measure(mpi: Mpi, ranks: number, command: readonly string[]): Figures {
  const args = [...mpirunArguments(findMpirun({ FMOE_MPIRUN: mpi.mpirun }), ranks), ...command];
  const env = { ...process.env, OMP_NUM_THREADS: '1', MPIR_CVAR_CH4_PROGRESS_THROTTLE: '1' };
  const output = execFileSync(mpi.mpirun, args, {
    encoding: 'utf8',
    env,
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  return new Map(
    output
      .trim()
      .split('\n')
      .map((line) => line.split(' ').map(Number))
      .map(([bytes, ...microseconds]) => [bytes!, microseconds]),
  );
}

function compare(ours: readonly number[], raw: readonly number[], bytes: number, ranks: number) {
  const microseconds = median(ours);
  return {
    rawMicroseconds: median(raw),
    microseconds,
    // What leaves a rank for the others.
    gigabytesPerSecond: (bytes * (ranks - 1)) / ranks / microseconds / 1e3,
    ratio: median(raw.map((figure, round) => figure / ours[round]!)),
  };
}

const folder = mkdtempSync(join(tmpdir(), 'fmoe-exchange-'));
const rows: { mpi: Mpi['family'] }[] = [];
try {
  const plan = join(folder, 'plan.txt');
  writeFileSync(plan, sizes.map((bytes) => `${bytes} ${iterationsFor(bytes)}\n`).join(''));
  for (const mpi of findMpis({ ...process.env, FMOE_MPI: process.env['FMOE_MPI'] || 'openmpi,mpich' })) {
    const raw = join(folder, `raw-${mpi.family}`);
    execFileSync(mpi.mpicc, ['-O2', '-o', raw, join(here, 'raw-alltoall.c')]);
    const ours = [
      process.execPath,
      '--import',
      import.meta.resolve('tsx'),
      join(here, 'our-alltoall.ts'),
      plan,
    ];
    for (const ranks of [2, 4]) {
      const pairs: { raw: Figures; ours: Figures }[] = [];
      for (let round = 0; round < rounds; round++) {
        // Who goes first alternates: a drift of the machine must not favour one side.
        const first = measure(mpi, ranks, round % 2 === 0 ? [raw, plan] : ours);
        const second = measure(mpi, ranks, round % 2 === 0 ? ours : [raw, plan]);
        pairs.push(round % 2 === 0 ? { raw: first, ours: second } : { raw: second, ours: first });
      }
      for (const bytes of sizes) {
        const [reused, fresh] = [0, 1].map((way) =>
          compare(
            pairs.map((pair) => pair.ours.get(bytes)![way]!),
            pairs.map((pair) => pair.raw.get(bytes)![way]!),
            bytes,
            ranks,
          ),
        );
        const row = {
          mpi: mpi.family,
          ranks,
          bytes,
          reused: reused!,
          fresh: fresh!,
        };
        rows.push({ ...row, ...(bytes >= targetFrom && { target }) });
        const shown = ({ rawMicroseconds, microseconds, ratio }: typeof row.fresh): string =>
          `raw ${rawMicroseconds.toFixed(1).padStart(8)} µs, ours ${microseconds.toFixed(1).padStart(8)} µs, ratio ${ratio.toFixed(2)}`;
        console.log(
          `${mpi.family.padEnd(8)}${ranks} ranks ${String(bytes / 1024).padStart(6)} KiB` +
            `  reused ${shown(row.reused)}  fresh ${shown(row.fresh)}`,
        );
      }
    }
  }
} finally {
  rmSync(folder, { recursive: true, force: true });
}

const machine = {
  cpu: cpus()[0]?.model ?? 'unknown',
  cores: availableParallelism(),
  memoryGiB: Math.round(totalmem() / 2 ** 30),
};
const versions = { openmpi: '5.0.11', mpich: '5.0.2' };
const results = join(here, '../results');
mkdirSync(results, { recursive: true });
const families = new Set(rows.map(({ mpi }) => mpi));
for (const family of families) {
  const report = {
    date: new Date().toISOString().slice(0, 10),
    machine,
    version: versions[family],
    node: process.version,
    rounds,
    rows: rows.filter(({ mpi }) => mpi === family),
  };
  writeFileSync(join(results, `exchange-${family}.json`), `${JSON.stringify(report, undefined, 2)}\n`);
}
