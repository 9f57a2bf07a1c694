import { existsSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { totalmem } from 'node:os';
import { join } from 'node:path';
import { findLibtorch, type Libtorch } from '@fmoe/torch/setup';
import { FmoeError } from '../errors.js';
import type { NativeBinding, NativeLoader } from './binding.js';
import { packageRoot } from './package-root.js';

/** One libtorch in a process: a second copy of this package would have its own handles and scopes. */
const claim = Symbol.for('@fmoe/torch.binding');

/** Opens a shared library, or throws what the system's loader said. */
let openLibrary: (path: string) => void = () => {
  throw new FmoeError('ERR_SETUP', 'the native addon is not loaded');
};

/** Loads libtorch and the addon. Called once, when something native is first needed. */
export function loadBinding(): NativeBinding {
  const root = packageRoot(import.meta.url, '@fmoe/torch');
  claimProcess(root);
  const build = join(root, 'native', 'build');
  const require = createRequire(import.meta.url);
  const libtorch = locateLibtorch();
  checkBuild(build, libtorch);
  const loader = require(join(build, 'fmoe_loader.node')) as NativeLoader;
  openLibrary = (path) => {
    const message = loader.open(path);
    if (message !== null) throw new FmoeError('ERR_SETUP', `cannot load ${path}: ${message}`);
  };
  shortenSpinning();
  openLibrary(join(libtorch.libDir, 'libc10.so'));
  openLibrary(join(libtorch.libDir, 'libtorch_cpu.so'));
  // CUDA must be there before the first operator. Where it cannot load, the CPU works on; `fmoe doctor` says why.
  if (libtorch.hasCuda) loader.open(join(libtorch.libDir, 'libtorch_cuda.so'));
  try {
    const binding = require(join(build, 'fmoe_torch.node')) as NativeBinding;
    // Some machines show only a part of their memory at first, so what is meant to catch nonsense is generous.
    binding.setMemoryLimit(4 * (totalmem() + swapSpace()));
    return binding;
  } catch (error) {
    throw new FmoeError('ERR_SETUP', `cannot load the native addon: ${String(error)}. ${remedy}`, {
      cause: error,
    });
  }
}

/**
 * Threads that wait for each other sleep after some microseconds. By default GNU's OpenMP spins for milliseconds, so that one
 * other busy process makes a training step ten times slower; alone, a step takes the same time either way. OpenMP reads
 * this once, when libtorch is opened.
 */
function shortenSpinning(): void {
  if (process.env['OMP_WAIT_POLICY'] === undefined) process.env['GOMP_SPINCOUNT'] ??= '1000';
}

/** Bytes of swap space, 0 where that is not told. */
function swapSpace(): number {
  try {
    return Number(/^SwapTotal:\s*(\d+) kB/m.exec(readFileSync('/proc/meminfo', 'utf8'))?.[1] ?? 0) * 1024;
  } catch {
    return 0;
  }
}

/** Opens a library of operators. See `loadLibrary`. */
export function openSharedLibrary(path: string): void {
  openLibrary(path);
}

const remedy = 'Run `npx fmoe-setup` (in a clone of the repository: `npm run setup`).';

function claimProcess(root: string): void {
  const process = globalThis as { [claim]?: string };
  const other = process[claim];
  if (other !== undefined && other !== root) {
    throw new FmoeError(
      'ERR_SETUP',
      `two copies of @fmoe/torch are loaded: ${other} and ${root}. Tensors of one mean nothing to the other: ` +
        'make all @fmoe packages use one copy (`npm dedupe`).',
    );
  }
  process[claim] = root;
}

function locateLibtorch(): Libtorch {
  try {
    return findLibtorch();
  } catch (error) {
    throw new FmoeError('ERR_SETUP', (error as Error).message, { cause: error });
  }
}

function checkBuild(build: string, libtorch: Libtorch): void {
  const record = join(build, 'build.json');
  if (!existsSync(join(build, 'fmoe_torch.node')) || !existsSync(record)) {
    throw new FmoeError('ERR_SETUP', `the native addon of @fmoe/torch is not built. ${remedy}`);
  }
  const { torchVersion } = JSON.parse(readFileSync(record, 'utf8')) as { torchVersion: string };
  if (torchVersion !== libtorch.version) {
    throw new FmoeError(
      'ERR_SETUP',
      `the native addon was built for libtorch ${torchVersion}, but ${libtorch.root} (found by ${libtorch.source}) ` +
        `is ${libtorch.version}. ${remedy}`,
    );
  }
}
