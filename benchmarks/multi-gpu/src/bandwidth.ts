/** The all-to-all of a rank's bytes against grouped ncclSend and ncclRecv, and against what the link can do. */
import { execFileSync } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { BandwidthFigures, Times } from './ranks/bandwidth.js';
import { type RanksResult, rankCommand, runRanks } from './run-ranks.js';
import { median, rounded, slowest } from './statistics.js';

export interface BandwidthSettings {
  device: 'cpu' | 'cuda';
  /** Bytes that a rank sends in all, its own part included, and how often. */
  plan: [bytes: number, iterations: number][];
  rounds: number;
  expertsPerRank: number;
  /** Of a row, in numbers of two bytes. */
  width: number;
}

export interface BandwidthRow {
  bytes: number;
  ourMicroseconds?: number;
  rawMicroseconds?: number;
  exchangeMicroseconds?: number;
  /** What leaves a rank for the others. */
  ourGigabytesPerSecond?: number;
  rawGigabytesPerSecond?: number;
  exchangeGigabytesPerSecond?: number;
  /** raw / ours in time. */
  ratio?: number;
  shareOfPeak?: number;
}

export function bandwidthSettings(device: 'cpu' | 'cuda', quick: boolean): BandwidthSettings {
  const kibibytes = quick ? [1, 64] : [1, 4, 16, 64, 256, 1024, 4096, 16384, 65536, 262144];
  const plan = kibibytes.map((size): [number, number] => {
    const bytes = size * 1024;
    return [bytes, quick ? 2 : Math.max(5, Math.min(200, Math.round(2 ** 31 / bytes)))];
  });
  return { device, plan, rounds: quick ? 1 : 5, expertsPerRank: 4, width: 1024 };
}

/**
 * Raw, ours, and raw again, so that a drift shows.
 *
 * @param limitSeconds of each of the three
 * @param linkPeak in GB/s, of one GPU in one direction
 * @param nccl the folder with NCCL's library and header
 */
export async function measureBandwidth(
  settings: BandwidthSettings,
  ranks: number,
  limitSeconds: number,
  linkPeak: number | undefined,
  nccl: string | undefined,
): Promise<{ rows: BandwidthRow[]; errors: string[] }> {
  const errors: string[] = [];
  const folder = mkdtempSync(join(tmpdir(), 'fmoe-bandwidth-'));
  const backend = settings.device === 'cuda' ? 'nccl' : 'mpi';
  try {
    const program = settings.device === 'cuda' ? compileRaw(nccl, folder, errors) : undefined;
    const plan = join(folder, 'plan.txt');
    writeFileSync(plan, settings.plan.map((line) => `${line.join(' ')}\n`).join(''));
    const raw = async (): Promise<Times[]> => {
      if (program === undefined) return [];
      const command = [program, plan, `${settings.rounds}`];
      return complete(await runRanks<Times>({ command, ranks, backend, limitSeconds }), ranks, 'raw', errors);
    };
    const before = await raw();
    const ours = complete(
      await runRanks<BandwidthFigures>({
        command: rankCommand('bandwidth.ts', settings),
        ranks,
        backend,
        limitSeconds,
      }),
      ranks,
      'ours',
      errors,
    );
    const after = await raw();
    const rawTimes = [...timesOf(before), ...timesOf(after)];
    const ourTimes = timesOf(ours.map(({ allToAll }) => allToAll));
    const exchangeTimes = timesOf(ours.map(({ exchange }) => exchange));
    const rows = settings.plan.map(([bytes]) => {
      const [our, rawTime, exchange] = [ourTimes, rawTimes, exchangeTimes].map((times) => {
        const own = times.filter(([size]) => size === bytes).map(([, milliseconds]) => milliseconds);
        return own.length === 0 ? undefined : median(own);
      });
      const speed = (milliseconds: number): number =>
        rounded((bytes * (ranks - 1)) / ranks / milliseconds / 1e6);
      return {
        bytes,
        ...(our !== undefined && {
          ourMicroseconds: rounded(our * 1e3),
          ourGigabytesPerSecond: speed(our),
          ...(linkPeak !== undefined && { shareOfPeak: rounded(speed(our) / linkPeak, 3) }),
        }),
        ...(rawTime !== undefined && {
          rawMicroseconds: rounded(rawTime * 1e3),
          rawGigabytesPerSecond: speed(rawTime),
          ...(our !== undefined && { ratio: rounded(rawTime / our, 3) }),
        }),
        ...(exchange !== undefined && {
          exchangeMicroseconds: rounded(exchange * 1e3),
          exchangeGigabytesPerSecond: speed(exchange),
        }),
      };
    });
    return { rows, errors };
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** With nvcc, for the headers of CUDA, against the NCCL that we use as well. */
function compileRaw(nccl: string | undefined, folder: string, errors: string[]): string | undefined {
  if (nccl === undefined) {
    errors.push('raw: no NCCL with a header beside libtorch');
    return undefined;
  }
  const source = fileURLToPath(new URL('./raw-alltoall.c', import.meta.url));
  const program = join(folder, 'raw-alltoall');
  // Passed on to the linker, since nvcc does not know what to do with a .so.2.
  const link = [join(nccl, 'lib/libnccl.so.2'), '-rpath', join(nccl, 'lib')].flatMap((word) => [
    '-Xlinker',
    word,
  ]);
  const homes = [process.env['CUDA_HOME'] ?? '/usr/local/cuda', join(nccl, '../cu13')];
  const nvcc = homes.map((home) => join(home, 'bin/nvcc')).find((path) => existsSync(path)) ?? 'nvcc';
  try {
    execFileSync(
      nvcc,
      ['-O2', '-cudart', 'static', '-I', join(nccl, 'include'), '-o', program, source, ...link],
      { stdio: ['ignore', 'pipe', 'pipe'], encoding: 'utf8' },
    );
    return program;
  } catch (error) {
    errors.push(`raw: ${(error as { stderr?: string }).stderr || String(error)}`);
    return undefined;
  }
}

/** What all ranks left; nothing where one is missing. */
function complete<Result>(
  { results, error }: RanksResult<Result>,
  ranks: number,
  what: string,
  errors: string[],
): Result[] {
  if (error !== undefined) errors.push(`${what}: ${error}`);
  return results.length === ranks ? results : [];
}

/** Those of the slowest rank. */
function timesOf(ofRanks: readonly Times[]): Times {
  if (ofRanks.length === 0) return [];
  const length = Math.min(...ofRanks.map((times) => times.length));
  const worst = slowest(ofRanks.map((times) => times.slice(0, length).map(([, time]) => time)));
  return worst.map((time, place): [number, number] => [ofRanks[0]![place]![0], time]);
}
