import { existsSync, mkdirSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { availableParallelism, totalmem } from 'node:os';
import { dirname, join } from 'node:path';
import { isDeepStrictEqual } from 'node:util';
import { ensureCudaCompiler } from './cuda-compiler.mjs';
import { SetupError } from './errors.mjs';
import { ask, run } from './exec.mjs';
import { hashFiles, isFile, listFiles, readJsonIfAny, readTextIfAny, writeJsonAtomically } from './files.mjs';
import { withLock } from './lock.mjs';
import { buildShims, ensureMpis, findMpis, shimSource } from './mpi.mjs';

/** @typedef {import('./paths.mjs').Environment} Environment */
/** @typedef {import('./libtorch.mjs').Libtorch} Libtorch */
/** @typedef {import('./python-env.mjs').BuildTools} BuildTools */

/**
 * What a native build was made from: `build.json` beside the binary. It holds no date, so equal inputs give equal files.
 *
 * @typedef {object} BuildRecord
 * @property {string} package
 * @property {string} torchVersion
 * @property {string} torchRoot
 * @property {string} compiler
 * @property {string} nodeAddonApi its version, or empty for a library that knows nothing of Node
 * @property {string} sourceHash SHA-256 over the native sources
 * @property {Record<string, string>} environment the variables that change the build
 * @property {Record<string, string>} [mpi] for a package with shims for MPI: the compiler of each family
 * @property {string[]} outputs names of the binaries
 */

/** Variables that a native package's CMakeLists.txt may look at. */
const BUILD_VARIABLES = [
  'CC',
  'CXX',
  'CXXFLAGS',
  'LDFLAGS',
  'CUDA_HOME',
  'CUDACXX',
  'FMOE_CUDA_KERNELS',
  'TORCH_CUDA_ARCH_LIST',
];

/** One translation unit over libtorch's headers takes about this much memory, bytes. */
const MEMORY_PER_COMPILER = 1.5 * 2 ** 30;

const require = createRequire(import.meta.url);

/**
 * @param {string} packageDir
 * @returns {string} the folder of that package's sources, `native`
 */
export function nativeFolder(packageDir) {
  return join(packageDir, 'native');
}

/**
 * @param {string} packageDir
 * @returns {string} the folder of its binaries and of `build.json`
 */
export function buildFolder(packageDir) {
  return join(nativeFolder(packageDir), 'build');
}

/**
 * @param {string} packageDir
 * @param {string} [build] where its binaries are
 * @returns {BuildRecord | undefined} what its binaries were made from; nothing when there is no finished build
 */
export function readBuildRecord(packageDir, build = buildFolder(packageDir)) {
  /** @type {BuildRecord | undefined} */
  const record = readJsonIfAny(join(build, 'build.json'));
  if (!record || !Array.isArray(record.outputs) || record.outputs.length === 0) return undefined;
  return record.outputs.every((name) => isFile(join(build, name))) ? record : undefined;
}

/**
 * @param {string} packageDir
 * @param {Libtorch} libtorch
 * @param {Environment} env
 * @returns {Omit<BuildRecord, 'outputs'>} what a build would be made from now
 */
export function describeBuild(packageDir, libtorch, env) {
  const manifest = readJsonIfAny(join(packageDir, 'package.json')) ?? {};
  const native = nativeFolder(packageDir);
  const usesNode = manifest.binary?.napi_versions !== undefined;
  const addonApi = usesNode ? require('node-addon-api/package.json').version : '';
  const compiler = ask(env['CXX'] || 'g++', ['--version'], { env: { ...env } })?.split('\n')[0];
  const environment = Object.fromEntries(
    BUILD_VARIABLES.flatMap((name) => (env[name] ? [[name, /** @type {string} */ (env[name])]] : [])),
  );
  return {
    package: String(manifest.name),
    torchVersion: libtorch.version,
    torchRoot: libtorch.root,
    compiler: compiler ?? 'unknown',
    nodeAddonApi: addonApi,
    sourceHash: hashFiles(
      native,
      listFiles(native, (name) => name === 'build' || name === 'node_modules'),
    ),
    environment,
    ...(shimSource(packageDir) && {
      mpi: Object.fromEntries(findMpis(env).map(({ family, mpicc }) => [family, mpicc])),
    }),
  };
}

/**
 * @param {string} packageDir
 * @param {Libtorch} libtorch
 * @param {Environment} [env]
 * @param {string} [build] where its binaries are
 * @returns {boolean} whether its binaries are there and made from what is there now
 */
export function isBuilt(packageDir, libtorch, env = process.env, build = buildFolder(packageDir)) {
  const record = readBuildRecord(packageDir, build);
  if (!record) return false;
  const { outputs: _, ...made } = record;
  return isDeepStrictEqual(made, describeBuild(packageDir, libtorch, env));
}

/**
 * @param {string} packageDir
 * @param {Libtorch} libtorch
 * @param {BuildTools} tools
 * @param {string} build where the binaries go
 * @param {Record<string, string>} more definitions for CMake
 * @returns {Promise<string[]>} the command that configures the build
 */
async function configureCommand(packageDir, libtorch, tools, build, more) {
  const native = nativeFolder(packageDir);
  const binaryDir = join(build, 'cmake');
  const manifest = readJsonIfAny(join(packageDir, 'package.json')) ?? {};
  /** @type {Record<string, string>} */
  const definitions = {
    FMOE_TORCH_INCLUDE: libtorch.includeDirs.join(';'),
    FMOE_TORCH_LIB: libtorch.libDir,
    // Modules land here by themselves; a CMakeLists.txt need not say it.
    CMAKE_LIBRARY_OUTPUT_DIRECTORY: build,
    CMAKE_BUILD_TYPE: 'Release',
    CMAKE_MAKE_PROGRAM: tools.ninja,
    ...more,
  };
  if (tools.ccache) {
    definitions['CMAKE_C_COMPILER_LAUNCHER'] = tools.ccache;
    definitions['CMAKE_CXX_COMPILER_LAUNCHER'] = tools.ccache;
  }
  const generator = 'Ninja';
  if (manifest.binary?.napi_versions === undefined) {
    const flags = Object.entries(definitions).map(([name, value]) => `-D${name}=${value}`);
    return [tools.cmake, '-S', native, '-B', binaryDir, '-G', generator, ...flags];
  }
  // cmake-js knows where Node-API's headers are. Its commands are taken as data and run here, so that their
  // output is shown when they fail and only then.
  const { CMake } = /** @type {NodeRequire} */ (require)('cmake-js');
  definitions['FMOE_NODE_ADDON_API'] = dirname(require.resolve('node-addon-api/package.json'));
  const cmake = new CMake({
    directory: native,
    out: binaryDir,
    cmakePath: tools.cmake,
    generator,
    isNodeApi: true,
    cMakeOptions: definitions,
  });
  const command = await cmake.getConfigureCommand();
  return [...command, '-S', native, '-B', binaryDir];
}

/**
 * Builds `<package>/native` with CMake into `<package>/native/build`, unless it is built already.
 *
 * The package's CMakeLists.txt gets `FMOE_TORCH_INCLUDE` and `FMOE_TORCH_LIB`, and where package.json has
 * `binary.napi_versions` also `CMAKE_JS_INC` and `FMOE_NODE_ADDON_API`. Its modules (`*.node`, `*.so`) are put straight into
 * `native/build`, and beside them a shim for each MPI where there is a `native/mpi/mpi-shim.c`.
 *
 * @param {string} packageDir
 * @param {object} options
 * @param {Libtorch} options.libtorch
 * @param {() => Promise<BuildTools>} options.tools asked only when there is something to build
 * @param {import('./log.mjs').Log} options.log
 * @param {Environment} [options.env]
 * @param {boolean} [options.force] build even if nothing has changed
 * @param {string} [options.build] another folder for the binaries, for builds with other definitions
 * @param {Record<string, string>} [options.definitions] definitions for CMake besides those above
 * @returns {Promise<'built' | 'up to date'>}
 * @throws {SetupError} with the compiler's messages
 */
export async function buildNative(
  packageDir,
  {
    libtorch,
    tools,
    log,
    env = process.env,
    force = false,
    build = buildFolder(packageDir),
    definitions = {},
  },
) {
  if (!force && isBuilt(packageDir, libtorch, env, build)) return 'up to date';
  mkdirSync(build, { recursive: true });
  const onWait = (/** @type {number | undefined} */ pid) =>
    log.note(`another set-up (process ${pid ?? 'unknown'}) is building this package; waiting for it`);
  return withLock(
    build,
    'set-up',
    async () => {
      if (!force && isBuilt(packageDir, libtorch, env, build)) return 'up to date';
      if (shimSource(packageDir)) await ensureMpis({ log, env });
      const description = describeBuild(packageDir, libtorch, env);
      const found = await tools();
      // Gone first, written last: a build that is cut off never looks finished.
      rmSync(join(build, 'build.json'), { force: true });
      const usesCuda = existsSync(join(nativeFolder(packageDir), 'cuda'));
      const nvcc = usesCuda
        ? await ensureCudaCompiler({ libDir: libtorch.libDir, torchVersion: libtorch.version, log, env })
        : undefined;
      const more = nvcc ? { ...definitions, FMOE_NVCC: nvcc } : definitions;
      const command = await configureCommand(packageDir, libtorch, found, build, more);
      await log.step(`native build of ${description.package} against libtorch ${libtorch.version}`, () =>
        compile(build, command, found.cmake, env),
      );
      await buildShims(packageDir, build, env);
      const outputs = readdirSync(build)
        .filter((name) => /\.(node|so)$/.test(name))
        .sort();
      if (outputs.length === 0) {
        throw new SetupError(`The native build of ${description.package} left no .node or .so in ${build}.`);
      }
      writeJsonAtomically(join(build, 'build.json'), { ...description, outputs });
      return 'built';
    },
    { onWait },
  );
}

/**
 * @param {string} build
 * @param {string[]} command the configure command
 * @param {string} cmake
 * @param {Environment} env
 */
async function compile(build, command, cmake, env) {
  const binaryDir = join(build, 'cmake');
  const memo = join(binaryDir, 'fmoe-configure.txt');
  const text = command.join('\n');
  // CMake keeps its first answers (generator, compiler, folders): another question needs a fresh folder.
  if (readTextIfAny(memo) !== text) rmSync(binaryDir, { recursive: true, force: true });
  mkdirSync(binaryDir, { recursive: true });
  const [program, ...args] = /** @type {[string, ...string[]]} */ (command);
  await run(program, args, { cwd: binaryDir, env: { ...env } });
  writeFileSync(memo, text);
  await run(cmake, ['--build', binaryDir, '--parallel', String(compilerCount())], { env: { ...env } });
}

/** @returns {number} how many compilers may run at once: one a core, if memory allows */
function compilerCount() {
  return Math.max(1, Math.min(availableParallelism(), Math.floor(totalmem() / MEMORY_PER_COMPILER)));
}
