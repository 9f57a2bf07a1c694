import { existsSync, readlinkSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { cudaCompilerRecipe, ensureCudaCompiler, findCudaCompiler } from './cuda-compiler.mjs';
import { SetupError } from './errors.mjs';
import { silentLog } from './log.mjs';
import { temporaryFolder, writeFiles, writeProgram } from './testing.mjs';

/** What the wheels put into an environment. */
function wheels() {
  const sitePackages = temporaryFolder();
  writeFiles(sitePackages, { 'nvidia/cu13/lib/libcudart.so.13': '', 'nvidia/cu13/bin/nvcc': '' });
  return sitePackages;
}

/** A libtorch with or without CUDA. */
function libtorch(/** @type {boolean} */ cuda) {
  const libDir = temporaryFolder();
  writeFiles(libDir, cuda ? { 'libc10_cuda.so': '' } : { 'libc10.so': '' });
  return libDir;
}

const env = { PATH: '', CUDA_HOME: '', FMOE_TORCH_VARIANT: 'cuda' };
// A toolkit in /usr/local/cuda is found before anything else that these tests set up.
const toolkit = existsSync('/usr/local/cuda/bin/nvcc') ? ' (skipped: a toolkit is in /usr/local/cuda)' : '';

describe('findCudaCompiler', () => {
  it('takes CUDACXX as it is, then CUDA_HOME', () => {
    const home = temporaryFolder();
    writeProgram(join(home, 'bin/nvcc'), 'exit 0');
    expect(findCudaCompiler({ ...env, CUDACXX: 'my-nvcc', CUDA_HOME: home })).toBe('my-nvcc');
    expect(findCudaCompiler({ ...env, CUDA_HOME: home })).toBe(join(home, 'bin/nvcc'));
  });
});

describe.skipIf(toolkit)(`ensureCudaCompiler${toolkit}`, () => {
  it('is not asked for on a machine without a GPU, unless by FMOE_CUDA_KERNELS', async () => {
    let asked = 0;
    const ensure = async () => {
      asked++;
      return { name: '', requirements: [], sitePackages: wheels(), python: '' };
    };
    const options = { libDir: libtorch(true), torchVersion: '2.11.0+cu130', log: silentLog, ensure };
    const cpu = { ...env, FMOE_TORCH_VARIANT: 'cpu' };
    expect(await ensureCudaCompiler({ ...options, env: cpu })).toBeUndefined();
    expect(asked).toBe(0);
    expect(await ensureCudaCompiler({ ...options, env: { ...cpu, FMOE_CUDA_KERNELS: '1' } })).toMatch(
      /nvcc$/,
    );
    expect(asked).toBe(1);
  });

  it('installs the compiler and gives its libraries the names that it asks for', async () => {
    const sitePackages = wheels();
    /** @type {unknown[]} */
    const asked = [];
    const ensure = async (/** @type {unknown} */ recipe) => {
      asked.push(recipe);
      return { name: '', requirements: [], sitePackages, python: '' };
    };
    const options = { libDir: libtorch(true), torchVersion: '2.11.0+cu130', log: silentLog, env, ensure };
    const nvcc = await ensureCudaCompiler(options);
    expect(nvcc).toBe(join(sitePackages, 'nvidia/cu13/bin/nvcc'));
    expect(readlinkSync(join(sitePackages, 'nvidia/cu13/lib64'))).toBe('lib');
    expect(readlinkSync(join(sitePackages, 'nvidia/cu13/lib/libcudart.so'))).toBe('libcudart.so.13');
    expect(await ensureCudaCompiler(options)).toBe(nvcc);
    expect(asked).toEqual([cudaCompilerRecipe, cudaCompilerRecipe]);
  });

  it('asks for nothing where libtorch has no CUDA, the system has a compiler, or the version is another', async () => {
    const ensure = () => Promise.reject(new Error('asked'));
    const options = { libDir: libtorch(true), torchVersion: '2.11.0+cu130', log: silentLog, env, ensure };
    expect(await ensureCudaCompiler({ ...options, libDir: libtorch(false) })).toBeUndefined();
    expect(await ensureCudaCompiler({ ...options, env: { ...env, CUDACXX: 'nvcc' } })).toBeUndefined();
    expect(await ensureCudaCompiler({ ...options, torchVersion: '2.11.0+cu126' })).toBeUndefined();
  });

  it('goes on without it when it cannot be installed, and says so', async () => {
    /** @type {string[]} */
    const notes = [];
    const log = { ...silentLog, note: (/** @type {string} */ text) => notes.push(text) };
    const ensure = () => Promise.reject(new SetupError('no network'));
    const options = { libDir: libtorch(true), torchVersion: '2.11.0+cu130', log, env, ensure };
    expect(await ensureCudaCompiler(options)).toBeUndefined();
    expect(notes.join()).toContain('no network');
  });
});
