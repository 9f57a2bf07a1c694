import { existsSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { type BoundOperator, cuda, FmoeError, libtorchVersion, loadLibrary, op } from '@fmoe/torch';
import { watchKernels } from './device-flags.js';

const remedy = 'Run `npx fmoe-setup` (in a clone of the repository: `npm run setup`).';

/** Both `src/` and the built `dist/` lie directly in the package. */
const defaultFolder = join(dirname(fileURLToPath(import.meta.url)), '..', 'native', 'build');

let loaded = false;

/**
 * Opens `libfmoe_kernels.so`, and where there is a GPU and they were built the CUDA kernels beside it, once; from then on
 * `torch.op('fmoe::…')` finds the operators. The functions of this package call it themselves: call it to pay for loading at
 * a time of your choice, or before using `torch.op` directly.
 *
 * @throws FmoeError `ERR_SETUP` when the library is not built, or was built for another libtorch than the one loaded.
 */
export function loadKernels(): void {
  if (!loaded) openKernels(defaultFolder);
}

/** @internal Opens the libraries of a given folder; {@link loadKernels} then has nothing to do. */
export function openKernels(folder: string): void {
  const library = join(folder, 'libfmoe_kernels.so');
  const record = join(folder, 'build.json');
  if (!existsSync(library) || !existsSync(record)) {
    throw new FmoeError('ERR_SETUP', `the native library of @fmoe/kernels is not built. ${remedy}`);
  }
  const { torchVersion } = JSON.parse(readFileSync(record, 'utf8')) as { torchVersion: string };
  const running = libtorchVersion();
  if (release(torchVersion) !== release(running)) {
    throw new FmoeError(
      'ERR_SETUP',
      `the native library of @fmoe/kernels was built for libtorch ${torchVersion}, but ${running} is loaded. ${remedy}`,
    );
  }
  loadLibrary(library);
  const cudaLibrary = join(folder, 'libfmoe_kernels_cuda.so');
  if (cuda.isAvailable() && existsSync(cudaLibrary)) loadLibrary(cudaLibrary);
  loaded = true;
}

/** `2.11.0+cu130` and `2.11.0` have the same binary interface on the CPU. */
function release(version: string): string {
  return version.split('+', 1)[0]!;
}

/** @internal An operator of the library, looked up at its first call. */
export function kernel(name: string): (...args: unknown[]) => unknown {
  let operator: BoundOperator | undefined;
  return (...args) => {
    if (operator === undefined) {
      loadKernels();
      operator = op(`fmoe::${name}`);
    }
    const result = operator(...args);
    watchKernels(name, args);
    return result;
  };
}
