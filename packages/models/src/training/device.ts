import { cuda, FmoeError } from '@fmoe/torch';

/**
 * The device that a configuration asks for; `auto` is the first GPU where there is one, else the CPU.
 *
 * @param localRank place among the ranks of this machine, which share its GPUs
 * @throws FmoeError ERR_ARGUMENT for a name that no device has; ERR_DEVICE when the device is not there
 */
export function chooseDevice(wanted: string, localRank = 0): string {
  if (wanted === 'cpu') return 'cpu';
  if (wanted !== 'auto' && !/^cuda(:\d+)?$/.test(wanted)) {
    throw new FmoeError('ERR_ARGUMENT', `device '${wanted}' is none of 'auto', 'cpu', 'cuda' and 'cuda:1'.`, {
      argument: 'device',
    });
  }
  const count = cuda.deviceCount();
  if (wanted === 'auto') return count > 0 ? `cuda:${localRank % count}` : 'cpu';
  const index = Number(wanted.split(':')[1] ?? (count > 0 ? localRank % count : 0));
  if (index < count) return `cuda:${index}`;
  const there = count === 0 ? 'there is no GPU' : `there are ${count} GPUs, numbered from 0`;
  throw new FmoeError('ERR_DEVICE', `device '${wanted}': ${there}. Set device to 'auto' or 'cpu'.`, {
    devices: [wanted],
  });
}
