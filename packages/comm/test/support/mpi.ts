import { spawn } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { findMpis, type Mpi, type MpiFamily } from '@fmoe/torch/setup';
import { findMpirun, mpirunArguments } from '../../src/launch/index.js';

const packageFolder = fileURLToPath(new URL('../../', import.meta.url));

/** Every MPI that the tests can use: those that set-up brought, or the system's. */
export const mpis: readonly Mpi[] = findMpis({ ...process.env, FMOE_MPI: 'openmpi,mpich' });

/** Why tests of a family cannot run here, or undefined when they can. */
export function missingMpi(family: MpiFamily): string | undefined {
  return mpis.some((mpi) => mpi.family === family)
    ? undefined
    : `no ${family}: run FMOE_MPI=openmpi,mpich npx fmoe-setup`;
}

/** How a run of `mpirun` ended. */
export interface RanksResult {
  code: number | null;
  signal: NodeJS.Signals | null;
  stdout: string;
  stderr: string;
  seconds: number;
  /** What each rank wrote with `report`, by rank; a rank that wrote nothing is missing. */
  reports: Map<number, Report>;
}

/** What a rank leaves in its file: see `ranks/report.ts`. */
export interface Report {
  pid: number;
  value?: unknown;
}

export interface RanksOptions {
  args?: readonly string[];
  env?: Readonly<Record<string, string>>;
  /** The launcher is killed after so many seconds. Default 120. */
  timeoutSeconds?: number;
  /** Called with the files' folder once all ranks have left their process ids. */
  whenStarted?: (pids: Map<number, number>, launcher: number) => void;
}

/** Starts a TypeScript file of `test/ranks` as so many ranks and waits for the end. */
export async function runRanks(
  family: MpiFamily,
  worldSize: number,
  file: string,
  { args = [], env = {}, timeoutSeconds = 120, whenStarted }: RanksOptions = {},
): Promise<RanksResult> {
  const mpi = mpis.find((candidate) => candidate.family === family)!;
  const folder = mkdtempSync(join(tmpdir(), 'fmoe-ranks-'));
  const begin = performance.now();
  const program = fileURLToPath(new URL(`../ranks/${file}`, import.meta.url));
  const child = spawn(
    mpi.mpirun,
    [
      ...mpirunArguments(findMpirun({ FMOE_MPIRUN: mpi.mpirun }), worldSize),
      process.execPath,
      '--import',
      import.meta.resolve('tsx'),
      program,
      ...args,
    ],
    {
      cwd: packageFolder,
      stdio: ['ignore', 'pipe', 'pipe'],
      timeout: timeoutSeconds * 1000,
      killSignal: 'SIGKILL',
      env: {
        ...process.env,
        OMP_NUM_THREADS: '1',
        MPIR_CVAR_CH4_PROGRESS_THROTTLE: '1',
        FMOE_COMM_TIMEOUT: '60',
        FMOE_TEST_REPORTS: folder,
        ...env,
      },
    },
  );
  const result = { stdout: '', stderr: '' };
  child.stdout.on('data', (data) => {
    result.stdout += String(data);
  });
  child.stderr.on('data', (data) => {
    result.stderr += String(data);
  });
  const watch = setInterval(() => {
    if (whenStarted === undefined) return;
    const pids = new Map([...readReports(folder)].map(([rank, { pid }]) => [rank, pid]));
    if (pids.size < worldSize) return;
    clearInterval(watch);
    whenStarted(pids, child.pid!);
  }, 50);
  const [code, signal] = await new Promise<[number | null, NodeJS.Signals | null]>((resolve, reject) => {
    child.on('error', reject);
    child.on('close', (...end) => resolve(end));
  });
  clearInterval(watch);
  const reports = readReports(folder);
  rmSync(folder, { recursive: true, force: true });
  return { code, signal, ...result, seconds: (performance.now() - begin) / 1000, reports };
}

function readReports(folder: string): Map<number, Report> {
  const reports = new Map<number, Report>();
  for (const name of readdirSync(folder)) {
    const rank = /^rank-(\d+)\.json$/.exec(name)?.[1];
    if (rank !== undefined)
      reports.set(Number(rank), JSON.parse(readFileSync(join(folder, name), 'utf8')) as Report);
  }
  return reports;
}

/** Whether a process is there, dead ones that nobody has waited for aside. */
export function isRunning(pid: number): boolean {
  try {
    const state = /^State:\s+(\S)/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1];
    return state !== 'Z' && state !== 'X';
  } catch {
    return false;
  }
}

/** What lies in shared memory. */
export function sharedMemory(): string[] {
  try {
    return readdirSync('/dev/shm').sort();
  } catch {
    return [];
  }
}

/** What lies in shared memory and no running process has mapped: other tests may be running ranks of their own. */
export function leftSharedMemory(): string[] {
  const mapped = readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map((pid) => {
      try {
        return readFileSync(`/proc/${pid}/maps`, 'utf8');
      } catch {
        return '';
      }
    })
    .join('\n');
  return sharedMemory().filter((name) => !mapped.includes(`/dev/shm/${name}`));
}
