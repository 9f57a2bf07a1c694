import { existsSync, symlinkSync } from 'node:fs';
import { join } from 'node:path';
import { SetupError } from './errors.mjs';
import { findProgram, isFile } from './files.mjs';
import { wantedVariant } from './machine.mjs';
import { ensureEnvironment } from './python-env.mjs';

/** @typedef {import('./paths.mjs').Environment} Environment */
/** @typedef {import('./log.mjs').Log} Log */

/** The CUDA that libtorch 2.11 from PyPI is built with: object code of another major version does not load beside it. */
const CUDA_MAJOR = '13';

/** @type {Readonly<import('./python-env.mjs').Recipe>} */
export const cudaCompilerRecipe = {
  name: `cuda-compiler-${CUDA_MAJOR}.0`,
  title: 'CUDA compiler (about 0.1 GB to download)',
  requirements: [
    'nvidia-cuda-nvcc==13.0.88',
    'nvidia-nvvm==13.0.88',
    'nvidia-cuda-crt==13.0.88',
    'nvidia-cuda-runtime==13.0.96',
    'nvidia-cuda-cccl==13.0.85',
  ],
  dependencies: false,
  bytes: 0.6e9,
};

/**
 * The CUDA compiler of the system, where CMake will look for it as well: `CUDACXX`, `CUDA_HOME`, `/usr/local/cuda`, `PATH`.
 *
 * @param {Environment} [env]
 * @returns {string | undefined}
 */
export function findCudaCompiler(env = process.env) {
  if (env['CUDACXX']) return env['CUDACXX'];
  const folders = [env['CUDA_HOME'], '/usr/local/cuda'].filter(
    (folder) => folder !== undefined && folder !== '',
  );
  const inFolder = folders.map((folder) => join(String(folder), 'bin/nvcc')).find((path) => isFile(path));
  return inFolder ?? findProgram('nvcc', env);
}

/**
 * Makes sure that there is a CUDA compiler for a libtorch that has CUDA: the system's, else one from PyPI where there is a GPU
 * (`FMOE_CUDA_KERNELS=1` asks for it elsewhere, to check that the sources compile). What cannot be had is a note, no error:
 * the packages are built for the CPU alone then.
 *
 * @param {object} options
 * @param {string} options.libDir the folder of libtorch's libraries
 * @param {string} options.torchVersion such as `2.11.0+cu130`
 * @param {Log} options.log
 * @param {Environment} [options.env]
 * @param {typeof ensureEnvironment} [options.ensure] tests put their own
 * @returns {Promise<string | undefined>} the compiler from PyPI; nothing when the system's serves or none is of use
 */
export async function ensureCudaCompiler({
  libDir,
  torchVersion,
  log,
  env = process.env,
  ensure = ensureEnvironment,
}) {
  if (!existsSync(join(libDir, 'libc10_cuda.so')) || findCudaCompiler(env)) return undefined;
  // Minutes of compiling for kernels that nothing here could run.
  if (wantedVariant(env) === 'cpu' && env['FMOE_CUDA_KERNELS'] !== '1') return undefined;
  const version = /\+cu(\d\d)/.exec(torchVersion)?.[1];
  if (version !== undefined && version !== CUDA_MAJOR) {
    log.note(
      `no CUDA compiler for libtorch ${torchVersion}: the kernels are built for the CPU. Set CUDA_HOME to its toolkit`,
    );
    return undefined;
  }
  try {
    const { sitePackages } = await ensure(cudaCompilerRecipe, { env, log });
    const root = join(sitePackages, `nvidia/cu${CUDA_MAJOR}`);
    linkLibraries(root);
    return join(root, 'bin/nvcc');
  } catch (error) {
    if (!(error instanceof SetupError)) throw error;
    log.note(`no CUDA compiler: the kernels are built for the CPU. ${error.problem}`);
    return undefined;
  }
}

/**
 * The wheels lack two names that the compiler asks the linker for.
 *
 * @param {string} root
 */
function linkLibraries(root) {
  const links = /** @type {const} */ ([
    ['lib', join(root, 'lib64')],
    [`libcudart.so.${CUDA_MAJOR}`, join(root, 'lib/libcudart.so')],
  ]);
  for (const [target, path] of links) {
    if (!existsSync(path)) symlinkSync(target, path);
  }
}
