import { randomBytes } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, renameSync, rmSync, statfsSync, symlinkSync } from 'node:fs';
import { basename, dirname, join, relative } from 'node:path';
import { completeEnvironment, markerPath, TOOLS_ENVIRONMENT, torchEnvironmentName } from './environments.mjs';
import { SetupError } from './errors.mjs';
import { ask, run } from './exec.mjs';
import { findProgram, writeJsonAtomically } from './files.mjs';
import { withLock } from './lock.mjs';
import { environmentsFolder, fmoeHome, locksFolder } from './paths.mjs';
import { checkPython, requireTools } from './toolchain.mjs';
import { TESTED_TORCH } from './torch-version.mjs';

/** @typedef {import('./paths.mjs').Environment} Environment */
/** @typedef {import('./log.mjs').Log} Log */
/** @typedef {import('./environments.mjs').EnvironmentRecord} EnvironmentRecord */

/**
 * What an environment is made of.
 *
 * @typedef {object} Recipe
 * @property {string} name
 * @property {string} title for people
 * @property {string[]} requirements exact versions, as pip takes them
 * @property {boolean} dependencies whether pip may add what these depend on
 * @property {number} bytes what download and installation take on the disk at most, together
 */

const GIGABYTE = 1e9;

/** @type {Readonly<Record<import('./machine.mjs').Variant, Recipe>>} */
export const torchRecipes = {
  // libtorch_cpu.so loads exactly these two packages of CUDA; the other 26 that torch asks for serve GPUs.
  cpu: {
    name: torchEnvironmentName('cpu'),
    title: `PyTorch ${TESTED_TORCH}, the parts for the CPU (about 0.5 GB to download)`,
    requirements: [`torch==${TESTED_TORCH}`, 'nvidia-cuda-runtime==13.0.96', 'nvidia-cuda-cupti==13.0.85'],
    dependencies: false,
    bytes: 2.2 * GIGABYTE,
  },
  cuda: {
    name: torchEnvironmentName('cuda'),
    title: `PyTorch ${TESTED_TORCH} with CUDA (about 2.7 GB to download)`,
    requirements: [`torch==${TESTED_TORCH}`],
    dependencies: true,
    bytes: 9 * GIGABYTE,
  },
};

/** @type {Readonly<Recipe>} */
export const toolsRecipe = {
  name: TOOLS_ENVIRONMENT,
  title: 'cmake and ninja',
  requirements: ['cmake==3.31.10', 'ninja==1.13.0'],
  dependencies: false,
  bytes: 0.4 * GIGABYTE,
};

/**
 * Makes sure that a Python environment exists; does nothing when it is there.
 *
 * It is made in a folder of its own and gets its final name, by a link, after its marker was written. So an
 * interrupted set-up leaves nothing that looks finished, and the next one starts over with the downloads that
 * the first one finished.
 *
 * @param {Recipe} recipe
 * @param {{ env?: Environment, log: Log, install?: typeof installPackages }} options
 *   `install` fills the new folder; tests put their own
 * @returns {Promise<EnvironmentRecord>}
 * @throws {SetupError} when Python is missing, the disk is too full or a download fails
 */
export async function ensureEnvironment(recipe, { env = process.env, log, install = installPackages }) {
  const final = join(environmentsFolder(env), recipe.name);
  const usable = () => {
    const record = completeEnvironment(final);
    return record && record.requirements.join() === recipe.requirements.join() ? record : undefined;
  };
  const present = usable();
  if (present) return present;

  const onWait = (/** @type {number | undefined} */ pid) =>
    log.note(`another set-up (process ${pid ?? 'unknown'}) is making the same environment; waiting for it`);
  return withLock(
    locksFolder(env),
    recipe.name,
    async () => {
      const made = usable();
      if (made) return made;
      return log.step(`Python environment: ${recipe.title}`, async () => {
        removeLeftovers(final);
        requireSpace(environmentsFolder(env), recipe);
        const folder = `${final}.${randomBytes(4).toString('hex')}`;
        mkdirSync(folder, { recursive: true });
        const installed = await install(recipe, folder, { env, log });
        writeJsonAtomically(markerPath(folder), {
          name: recipe.name,
          requirements: recipe.requirements,
          sitePackages: relative(folder, installed.sitePackages),
          python: installed.python,
        });
        const link = `${final}.link-${randomBytes(4).toString('hex')}`;
        symlinkSync(basename(folder), link);
        renameSync(link, final);
        const record = usable();
        if (!record) throw new SetupError(`${final} is not complete although pip succeeded`);
        return record;
      });
    },
    { onWait },
  );
}

/**
 * Removes what interrupted set-ups and outdated recipes left under this name.
 *
 * @param {string} final
 */
function removeLeftovers(final) {
  const parent = dirname(final);
  if (!existsSync(parent)) return;
  for (const name of readdirSync(parent)) {
    if (name === basename(final) || name.startsWith(`${basename(final)}.`)) {
      // Retries: a pip that outlived its killed set-up may still be writing.
      rmSync(join(parent, name), { recursive: true, force: true, maxRetries: 5 });
    }
  }
}

/**
 * @param {string} folder where the environment is to be; it need not exist yet
 * @param {Recipe} recipe
 * @throws {SetupError} when the disk has too little room
 */
export function requireSpace(folder, recipe) {
  mkdirSync(folder, { recursive: true });
  const { bavail, bsize } = statfsSync(folder);
  const free = bavail * bsize;
  if (free >= recipe.bytes) return;
  const gb = (/** @type {number} */ bytes) => `${(bytes / GIGABYTE).toFixed(1)} GB`;
  throw new SetupError(
    `${recipe.title}: ${gb(recipe.bytes)} are needed in ${folder}, ${gb(free)} are free.`,
    'free some space, or set FMOE_HOME to a folder on a larger disk',
  );
}

/**
 * Makes the virtual environment and lets its pip install the packages.
 *
 * @param {Recipe} recipe
 * @param {string} folder
 * @param {{ env: Environment, log: Log }} options
 * @returns {Promise<{ sitePackages: string, python: string }>}
 */
async function installPackages(recipe, folder, { env, log }) {
  const check = checkPython(env);
  requireTools([check]);
  await run(/** @type {string} */ (check.path), ['-m', 'venv', folder], { env: pythonEnvironment(env) });
  const python = join(folder, 'bin/python');
  const cache = join(fmoeHome(env), 'pip-cache', recipe.name);
  const show = process.stdout.isTTY === true;
  const args = ['-m', 'pip', 'install', '--no-input', '--disable-pip-version-check', '--cache-dir', cache];
  if (!recipe.dependencies) args.push('--no-deps');
  try {
    await run(python, [...args, ...recipe.requirements], { env: pythonEnvironment(env), show });
  } catch (error) {
    const problem = error instanceof SetupError ? error.problem : String(error);
    throw new SetupError(
      `Could not install ${recipe.requirements.join(', ')}: ${problem}`,
      'check the network (behind a proxy set HTTPS_PROXY, with an index of your own PIP_INDEX_URL) and run set-up ' +
        'again; finished downloads are kept',
      { cause: error },
    );
  }
  // The installed files are enough; the wheels would take the same space once more.
  rmSync(cache, { recursive: true, force: true });
  const code = 'import sys, sysconfig; print(sysconfig.get_path("purelib")); print(sys.version.split()[0])';
  const [sitePackages, version] = (ask(python, ['-c', code], { env: pythonEnvironment(env) }) ?? '').split(
    '\n',
  );
  if (!sitePackages || !version) throw new SetupError(`${python} does not run after its installation`);
  log.note(`Python ${version} in ${folder}`);
  return { sitePackages, python: version };
}

/**
 * The environment without what would send packages somewhere else.
 *
 * @param {Environment} env
 * @returns {Record<string, string | undefined>}
 */
function pythonEnvironment(env) {
  const result = { ...env };
  for (const name of ['PYTHONHOME', 'PYTHONPATH', 'PIP_USER', 'PIP_TARGET', 'PIP_PREFIX', 'PIP_ROOT']) {
    delete result[name];
  }
  return result;
}

/**
 * The programs that native builds use.
 *
 * @typedef {object} BuildTools
 * @property {string} cmake
 * @property {string} ninja
 * @property {string | undefined} ccache
 */

/** CMake 3.24 is the first with the CUDA architectures that the kernels name. */
const OLDEST_CMAKE = /** @type {const} */ ([3, 24]);

/**
 * @param {Environment} env
 * @returns {string | undefined} the CMake on `PATH`, if it is new enough
 */
export function findCmake(env) {
  const path = findProgram('cmake', env);
  const match = path && /version (\d+)\.(\d+)/.exec(ask(path, ['--version'], { env: { ...env } }) ?? '');
  if (!match) return undefined;
  const [major, minor] = [Number(match[1]), Number(match[2])];
  const enough = major > OLDEST_CMAKE[0] || (major === OLDEST_CMAKE[0] && minor >= OLDEST_CMAKE[1]);
  return enough ? path : undefined;
}

/**
 * Finds cmake and ninja, or gets them from PyPI.
 *
 * @param {{ env?: Environment, log: Log }} options
 * @returns {Promise<BuildTools>}
 */
export async function ensureBuildTools({ env = process.env, log }) {
  const ccache = findProgram('ccache', env);
  const cmake = findCmake(env);
  const ninja = findProgram('ninja', env);
  if (cmake && ninja) return { cmake, ninja, ccache };
  await ensureEnvironment(toolsRecipe, { env, log });
  const bin = join(environmentsFolder(env), toolsRecipe.name, 'bin');
  return { cmake: cmake ?? join(bin, 'cmake'), ninja: ninja ?? join(bin, 'ninja'), ccache };
}
