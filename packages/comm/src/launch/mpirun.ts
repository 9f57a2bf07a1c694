import { spawnSync } from 'node:child_process';
import { accessSync, constants, existsSync, readdirSync, realpathSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { delimiter, join } from 'node:path';
import { FmoeError } from '@fmoe/torch';
import { fmoeHome } from '@fmoe/torch/setup';

/** An MPI's starter. */
export interface Mpirun {
  path: string;
  family: 'openmpi' | 'mpich';
  /** The first number of its version. */
  major: number;
  version: string;
}

/**
 * Finds `mpirun`: `FMOE_MPIRUN`, else the one on `PATH`, which on a cluster knows its network, else the one of set-up.
 *
 * @throws FmoeError ERR_SETUP when there is none, or it is neither OpenMPI's nor of MPICH's family
 */
export function findMpirun(env: NodeJS.ProcessEnv = process.env): Mpirun {
  const named = env['FMOE_MPIRUN'];
  const path = named ? [named].find(isExecutable) : candidates(env)[0];
  if (path !== undefined) return describe(path);
  throw new FmoeError(
    'ERR_SETUP',
    named
      ? `FMOE_MPIRUN names ${named}, which is no program.`
      : 'There is no mpirun on PATH and set-up has brought none. Run npx fmoe-setup, install OpenMPI or MPICH, or name one in FMOE_MPIRUN.',
  );
}

/** All that are there, in that order. */
export function listMpiruns(env: NodeJS.ProcessEnv = process.env): Mpirun[] {
  return candidates(env).map(describe);
}

/** The arguments that start a command that many times: on this machine, unless others say where. */
export function mpirunArguments(mpirun: Mpirun, processes: number, elsewhere?: readonly string[]): string[] {
  if (mpirun.family === 'mpich') return [...(elsewhere ?? []), '-n', `${processes}`];
  return [
    '-n',
    `${processes}`,
    '--oversubscribe',
    // Started by its whole path, it would put its own folder before the PATH of the ranks.
    '--noprefix',
    ...(process.getuid?.() === 0 ? ['--allow-run-as-root'] : []),
    // Bound to one core each, ranks could not use more threads.
    ...['--bind-to', 'none'],
    // On one machine shared memory only: the search for networks takes a second and their components are slower on one machine.
    ...(elsewhere ?? ['--mca', 'pml', 'ob1', '--mca', 'btl', mpirun.major >= 5 ? 'self,sm' : 'self,vader']),
  ];
}

/** Variables that an MPI wants with that many ranks. */
export function mpirunEnvironment(mpirun: Mpirun, processes: number): NodeJS.ProcessEnv {
  const crowded = processes > availableParallelism();
  // MPICH spins while it waits, which takes the core from the rank that is waited for.
  return mpirun.family === 'mpich' && crowded ? { MPIR_CVAR_CH4_PROGRESS_THROTTLE: '1' } : {};
}

function candidates(env: NodeJS.ProcessEnv): string[] {
  return [...onPath(env), ...inEnvironments(env)].filter(isExecutable);
}

function describe(path: string): Mpirun {
  const { stdout, stderr } = spawnSync(path, ['--version'], { encoding: 'utf8' });
  const text = `${stdout}${stderr}`;
  for (const [family, pattern] of [
    ['openmpi', /Open ?MPI\)?,? (\d[\w.]*)/i],
    ['mpich', /(?:HYDRA|MPICH|Intel\(R\) MPI)[\s\S]*?(\d+\.[\w.]*)/i],
  ] as const) {
    const version = pattern.exec(text)?.[1];
    if (version !== undefined) return { path, family, major: Number.parseInt(version, 10), version };
  }
  throw new FmoeError('ERR_SETUP', `${path} is neither OpenMPI's mpirun nor that of an MPICH.`);
}

function onPath(env: NodeJS.ProcessEnv): string[] {
  const folders = (env['PATH'] ?? '').split(delimiter).filter((folder) => folder !== '');
  // OpenMPI takes the folder above for its own, and refuses the root: /bin is a link to /usr/bin.
  return folders.map((folder) => join(folder === '/bin' ? realpathSync(folder) : folder, 'mpirun'));
}

function inEnvironments(env: NodeJS.ProcessEnv): string[] {
  const folder = join(fmoeHome(env), 'envs');
  if (!existsSync(folder)) return [];
  // OpenMPI first: it waits without spinning where ranks outnumber cores.
  const names = readdirSync(folder).sort();
  return names
    .filter((name) => name.includes('mpi'))
    .sort((a, b) => Number(b.includes('openmpi')) - Number(a.includes('openmpi')))
    .map((name) => join(folder, name, 'bin', 'mpirun'));
}

/** Whether a path names a program. */
export function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}
