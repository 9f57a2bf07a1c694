import { existsSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { type BoundOperator, FmoeError, libtorchVersion, loadLibrary, op } from '@fmoe/torch';

const remedy = 'Run `npx fmoe-setup` (in a clone of the repository: `npm run setup`).';

/** Where set-up puts the native libraries. Both `src/` and the built `dist/` lie directly in the package. */
const buildFolder = join(dirname(fileURLToPath(import.meta.url)), '..', 'native', 'build');

let loaded = false;

/**
 * Opens `libfmoe_comm.so`, once; from then on `torch.op('fmoe_comm::…')` finds the operators. Groups and exchange functions call
 * it themselves.
 *
 * @throws FmoeError `ERR_SETUP` when the library is not built, or was built for another libtorch than the one loaded.
 */
export function loadComm(): void {
  if (!loaded) openComm(buildFolder);
}

/** @internal Opens the library of a given folder; {@link loadComm} then has nothing to do. */
export function openComm(folder: string): void {
  const library = join(folder, 'libfmoe_comm.so');
  const record = join(folder, 'build.json');
  if (!existsSync(library) || !existsSync(record)) {
    throw new FmoeError('ERR_SETUP', `the native library of @fmoe/comm is not built. ${remedy}`);
  }
  const { torchVersion } = JSON.parse(readFileSync(record, 'utf8')) as { torchVersion: string };
  const running = libtorchVersion();
  if (release(torchVersion) !== release(running)) {
    throw new FmoeError(
      'ERR_SETUP',
      `the native library of @fmoe/comm was built for libtorch ${torchVersion}, but ${running} is loaded. ${remedy}`,
    );
  }
  loadLibrary(library);
  loaded = true;
}

/** `2.11.0+cu130` and `2.11.0` have the same binary interface on the CPU. */
function release(version: string): string {
  return version.split('+', 1)[0]!;
}

/** @internal The shim for one MPI, whether or not it is there. */
export function mpiShim(family: string): string {
  return join(buildFolder, `libfmoe_mpi_${family}.so`);
}

const operators = new Map<string, BoundOperator>();

/** @internal An operator of the library, looked up at its first call. */
export function commOperator(name: string): BoundOperator {
  let operator = operators.get(name);
  if (operator === undefined) {
    loadComm();
    operator = op(`fmoe_comm::${name}`);
    operators.set(name, operator);
  }
  return operator;
}
