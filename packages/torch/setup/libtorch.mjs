import { dirname, join, resolve } from 'node:path';
import { completeEnvironment, torchEnvironmentName } from './environments.mjs';
import { SetupError } from './errors.mjs';
import { ask } from './exec.mjs';
import { findProgram, isFile, isFolder } from './files.mjs';
import { wantedVariant } from './machine.mjs';
import { environmentsFolder } from './paths.mjs';
import { judgeTorchVersion, OLDEST_TORCH, readTorchVersion, TESTED_TORCH } from './torch-version.mjs';

/** @typedef {import('./paths.mjs').Environment} Environment */

/**
 * An installation of libtorch.
 *
 * @typedef {object} Libtorch
 * @property {'LIBTORCH' | 'LIBTORCH_USE_PYTORCH' | 'FMOE_HOME'} source which rule found it
 * @property {string} root the folder that holds it (of a wheel: the `torch` package)
 * @property {string[]} includeDirs folders for the compiler, in order
 * @property {string} libDir the folder with `libtorch_cpu.so` and `libc10.so`
 * @property {string} version such as `2.11.0+cu130`
 * @property {boolean} tested whether this project is tested with that version
 * @property {boolean} hasCuda whether its CUDA part is there together with cuDNN, which that part loads
 */

/** What the remedies offer. */
const REMEDY =
  'run `npx fmoe-setup` (in a clone: `npm run setup`) to install PyTorch ' +
  `${TESTED_TORCH} into a private environment, or set LIBTORCH to the folder of a libtorch, ` +
  'or set LIBTORCH_USE_PYTORCH=1 with a Python that has torch.';

/** Set to 1 it lets a libtorch of a refused version through. */
const BYPASS = 'FMOE_IGNORE_LIBTORCH_VERSION';

/**
 * @param {string} libDir
 * @returns {boolean}
 */
function cudaIsComplete(libDir) {
  if (!isFile(join(libDir, 'libtorch_cuda.so'))) return false;
  // In a wheel cuDNN is a package beside torch, in the archive it lies with libtorch itself. The CPU-only
  // environment holds libtorch_cuda.so as well, but nothing of what that library needs.
  const sitePackages = dirname(dirname(libDir));
  return [libDir, join(sitePackages, 'nvidia/cudnn/lib')].some((folder) =>
    isFile(join(folder, 'libcudnn.so.9')),
  );
}

/**
 * @param {Libtorch['source']} source
 * @param {string} root
 * @param {{ include?: string | undefined, lib?: string | undefined, env: Environment }} options
 * @returns {Libtorch | string} the installation, or what is wrong with it
 */
function inspect(source, root, { include: includeHint, lib: libHint, env }) {
  // As with other bindings, the hints name the folder above `include` and `lib`; the folders themselves will do.
  const includeRoot = resolve(includeHint ?? root);
  const libRoot = resolve(libHint ?? root);
  const include = [join(includeRoot, 'include'), includeRoot].find((d) => isFile(join(d, 'ATen/ATen.h')));
  const libDir = [join(libRoot, 'lib'), libRoot].find((d) => isFile(join(d, 'libtorch_cpu.so')));
  if (!libDir) {
    return `${join(libRoot, 'lib')} has no libtorch_cpu.so`;
  }
  if (!include) return `${join(includeRoot, 'include')} has no ATen/ATen.h`;
  const version = readTorchVersion(root, include);
  if (!version) return `${root} does not tell its version (no version.py, build-version or torch/version.h)`;
  const verdict = judgeTorchVersion(version);
  if (verdict === 'refused' && env[BYPASS] !== '1') {
    return (
      `${root} is version ${version}; accepted is ${OLDEST_TORCH} up to the end of 2.x, ` +
      `tested ${TESTED_TORCH} (${BYPASS}=1 lets it through)`
    );
  }
  return {
    source,
    root,
    includeDirs: [include, join(include, 'torch/csrc/api/include')],
    libDir,
    version,
    tested: verdict === 'tested',
    hasCuda: cudaIsComplete(libDir),
  };
}

/**
 * The `torch` package of the active Python, found without importing it.
 *
 * @param {Environment} env
 * @returns {{ root: string } | { problem: string }}
 */
function askPython(env) {
  const active = env['VIRTUAL_ENV'] ? join(env['VIRTUAL_ENV'], 'bin/python') : undefined;
  const python =
    active && isFile(active) ? active : (findProgram('python3', env) ?? findProgram('python', env));
  if (!python) return { problem: 'no python3 on PATH' };
  const code =
    'import importlib.util as u\ns = u.find_spec("torch")\nprint(s.submodule_search_locations[0] if s else "")';
  const root = ask(python, ['-c', code], { env: { ...env } });
  if (root === undefined) return { problem: `${python} did not run` };
  return root === '' ? { problem: `${python} has no torch package` } : { root };
}

/**
 * The folders that set-up may have filled, the one for this machine first.
 *
 * @param {Environment} env
 * @returns {string[]}
 */
function environmentsInOrder(env) {
  /** @type {import('./machine.mjs').Variant[]} */
  const order = wantedVariant(env) === 'cuda' ? ['cuda', 'cpu'] : ['cpu', 'cuda'];
  return order.map((variant) => join(environmentsFolder(env), torchEnvironmentName(variant)));
}

/**
 * Finds the libtorch to use. The order:
 *
 * 1. `LIBTORCH`, the folder of an installation, with `LIBTORCH_INCLUDE` and `LIBTORCH_LIB` where headers or
 *    libraries lie elsewhere (each may also stand alone);
 * 2. `LIBTORCH_USE_PYTORCH=1`: the `torch` package of the active Python (`VIRTUAL_ENV`, else `python3`);
 * 3. the environment that set-up made below `FMOE_HOME`.
 *
 * A variable that is set and does not lead to a usable libtorch is an error, not a reason to take another one.
 *
 * @param {Environment} [env]
 * @returns {Libtorch}
 * @throws {SetupError} listing each place tried and the remedy
 */
export function findLibtorch(env = process.env) {
  /** @type {string[]} */
  const tried = [];
  const { LIBTORCH, LIBTORCH_INCLUDE, LIBTORCH_LIB } = env;

  if (LIBTORCH || LIBTORCH_INCLUDE || LIBTORCH_LIB) {
    const root = LIBTORCH ?? LIBTORCH_LIB ?? LIBTORCH_INCLUDE ?? '';
    const found = inspect('LIBTORCH', resolve(root), { include: LIBTORCH_INCLUDE, lib: LIBTORCH_LIB, env });
    if (typeof found !== 'string') return found;
    const set = Object.entries({ LIBTORCH, LIBTORCH_INCLUDE, LIBTORCH_LIB })
      .filter(([, value]) => value)
      .map(([name, value]) => `${name}=${value}`);
    tried.push(`${set.join(' ')}: ${found}`);
    throw notFound(tried, 'correct or unset these variables; without them: ' + REMEDY);
  }
  tried.push('LIBTORCH: not set');

  if (env['LIBTORCH_USE_PYTORCH'] === '1') {
    const answer = askPython(env);
    const found = 'root' in answer ? inspect('LIBTORCH_USE_PYTORCH', answer.root, { env }) : answer.problem;
    if (typeof found !== 'string') return found;
    tried.push(`LIBTORCH_USE_PYTORCH=1: ${found}`);
    throw notFound(tried, 'activate a Python that has torch or unset the variable; without it: ' + REMEDY);
  }
  tried.push('LIBTORCH_USE_PYTORCH: not set to 1');

  for (const folder of environmentsInOrder(env)) {
    const made = completeEnvironment(folder);
    if (!made) {
      const state = isFolder(folder) ? 'not complete (set-up was interrupted)' : 'does not exist';
      tried.push(`FMOE_HOME: ${folder}: ${state}`);
      continue;
    }
    const found = inspect('FMOE_HOME', join(made.sitePackages, 'torch'), { env });
    if (typeof found !== 'string') return found;
    tried.push(`FMOE_HOME: ${found}`);
  }
  throw notFound(tried, REMEDY);
}

/**
 * @param {string[]} tried
 * @param {string} remedy
 */
function notFound(tried, remedy) {
  return new SetupError(
    `No usable libtorch. Tried, in this order:\n${tried.map((t) => `  - ${t}`).join('\n')}`,
    remedy,
  );
}
