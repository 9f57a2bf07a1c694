import { cuda, FmoeError } from '@fmoe/torch';

/**
 * The device that a configuration asks for; `auto` is the first GPU where there is one, else the CPU.
 *
 * @throws FmoeError ERR_DEVICE when the device is not there
 */
export function chooseDevice(wanted: string): string {
  if (wanted === 'cpu') return 'cpu';
  const count = cuda.deviceCount();
  if (wanted === 'auto') return count > 0 ? 'cuda:0' : 'cpu';
  const index = Number(wanted.split(':')[1] ?? 0);
  if (index < count) return `cuda:${index}`;
  const there = count === 0 ? 'there is no GPU' : `there are ${count} GPUs, numbered from 0`;
  throw new FmoeError('ERR_DEVICE', `device '${wanted}': ${there}. Set device to 'auto' or 'cpu'.`, {
    devices: [wanted],
  });
}
