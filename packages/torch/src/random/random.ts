import { checkTensor, seedBits } from '../check.js';
import { cuda } from '../devices/cuda.js';
import { checkDevice } from '../devices/device.js';
import { native } from '../native/index.js';
import { fromTypedArray } from '../tensor/factories.js';
import type { Tensor } from '../tensor/tensor.js';
import { guarded, wrap } from '../tensor/tensor-base.js';

/**
 * Starts the default random sequence of every device.
 *
 * @param seed an integer of at most 64 bits; negative ones count from the top, as in PyTorch
 * @throws FmoeError `ERR_ARGUMENT` for any other seed.
 */
export function manualSeed(seed: number | bigint): void {
  const bits = seedBits('manualSeed', seed);
  native().setSeed('cpu', bits);
  for (let i = 0; i < cuda.deviceCount(); i++) native().setSeed(`cuda:${i}`, bits);
}

/** The seed that the CPU's sequence started from. */
export const initialSeed = (): bigint => native().getSeed('cpu');

/** Where the default random sequence of a device stands: a uint8 tensor on the CPU. */
export function getRngState(device = 'cpu'): Tensor {
  checkDevice('getRngState', device);
  return wrap(guarded('getRngState', () => native().getRandomState(device)));
}

/** Continues the sequence from a state that {@link getRngState} gave. */
export function setRngState(state: Tensor | Uint8Array, device = 'cpu'): void {
  checkDevice('setRngState', device);
  const tensor = state instanceof Uint8Array ? fromTypedArray(state, [state.length], { copy: true }) : state;
  checkTensor('setRngState', 'state', tensor);
  guarded('setRngState', () => native().setRandomState(device, tensor.handle), [tensor]);
  if (tensor !== state) tensor.dispose();
}
