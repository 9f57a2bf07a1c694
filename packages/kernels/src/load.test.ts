import { copyFileSync, existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import * as torch from '@fmoe/torch';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { loadKernels, openKernels } from './load.js';

const built = fileURLToPath(new URL('../native/build', import.meta.url));

/** Whether the CUDA kernels were asked for, on a libtorch with the CUDA whose compiler set-up gets. */
function compilesCuda(): boolean {
  const { torchVersion } = JSON.parse(readFileSync(join(built, 'build.json'), 'utf8')) as {
    torchVersion: string;
  };
  return process.env['FMOE_CUDA_KERNELS'] === '1' && torchVersion.includes('+cu13');
}

describe('loadKernels', () => {
  let folder: string;
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'fmoe-kernels-'));
  });
  afterEach(() => rmSync(folder, { recursive: true, force: true }));

  it('makes the operators known to the dispatcher, and does nothing the second time', () => {
    loadKernels();
    loadKernels();
    for (const name of ['route_plan', 'dispatch', 'grouped_linear', 'combine']) {
      expect(torch.op(`fmoe::${name}`).schema.name).toContain(name);
    }
  });

  it('says how to build the library when it is missing', () => {
    expect(() => openKernels(folder)).toThrow(
      expect.objectContaining({ code: 'ERR_SETUP', message: expect.stringContaining('npx fmoe-setup') }),
    );
  });

  it('takes a library whose build was cut off for missing', () => {
    copyFileSync(join(built, 'libfmoe_kernels.so'), join(folder, 'libfmoe_kernels.so'));
    expect(() => openKernels(folder)).toThrow(expect.objectContaining({ code: 'ERR_SETUP' }));
  });

  // With a GPU or without: set-up finds the system's CUDA compiler or gets that of PyPI.
  it('has the CUDA kernels built beside it', ({ skip }) => {
    skip(!compilesCuda(), 'set-up compiles CUDA only with a GPU or FMOE_CUDA_KERNELS=1');
    expect(existsSync(join(built, 'libfmoe_kernels_cuda.so'))).toBe(true);
  });

  it('refuses a library that was built for another libtorch', () => {
    copyFileSync(join(built, 'libfmoe_kernels.so'), join(folder, 'libfmoe_kernels.so'));
    writeFileSync(join(folder, 'build.json'), JSON.stringify({ torchVersion: '1.13.1' }));
    expect(() => openKernels(folder)).toThrow(
      expect.objectContaining({
        code: 'ERR_SETUP',
        message: expect.stringMatching(/built for libtorch 1\.13\.1, but \d+\.\d+.* is loaded/),
      }),
    );
  });
});
