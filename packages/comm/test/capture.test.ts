/** CUDA graphs are PyTorch's to capture, so a Python program does it, with our libraries in its process. */
import { spawnSync } from 'node:child_process';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { findLibtorch } from '@fmoe/torch/setup';
import { describeUnless, missingReason } from '@fmoe/torch/testing';
import { expect, it } from 'vitest';

const path = (relative: string): string => fileURLToPath(new URL(relative, import.meta.url));

describeUnless(missingReason('cuda'), 'a CUDA graph next to NCCL', () => {
  it('can be captured while an operation is under way', () => {
    const active = process.env['VIRTUAL_ENV'];
    const { status, stdout, stderr } = spawnSync(
      active ? join(active, 'bin/python') : 'python3',
      [
        path('capture.py'),
        path('../../kernels/native/build/libfmoe_kernels.so'),
        path('../../kernels/native/build/libfmoe_kernels_cuda.so'),
        path('../native/build/libfmoe_comm.so'),
        'libnccl.so.2',
      ],
      {
        encoding: 'utf8',
        timeout: 100_000,
        // The same libtorch as here.
        env: { ...process.env, PYTHONPATH: dirname(findLibtorch().root), NCCL_NVLS_ENABLE: '0' },
      },
    );
    expect(status, `${stdout}\n${stderr}`).toBe(0);
    expect(stdout).toMatch(/captured/);
  }, 120_000);
});
