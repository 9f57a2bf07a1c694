import { describeValue } from '../describe.js';
import { FmoeError } from '../errors.js';
import { native } from '../native/index.js';

/** Devices that were checked; those of a machine do not change. */
const known = new Set(['cpu', 'meta']);

/**
 * A device that exists here.
 *
 * @param op what asks for it
 * @throws FmoeError `ERR_ARGUMENT` for what is no string, `ERR_DEVICE` for a name that is none or a GPU that is not there.
 */
export function checkDevice(op: string, device: unknown): string {
  if (known.has(device as string)) return device as string;
  if (typeof device !== 'string') {
    throw new FmoeError(
      'ERR_ARGUMENT',
      `${op}: argument 'device' must be a string such as 'cpu', got ${describeValue(device)}`,
      {
        op,
        argument: 'device',
      },
    );
  }
  const fail = (problem: string): never => {
    throw new FmoeError('ERR_DEVICE', `${op}: ${problem}`, { op, argument: 'device', devices: [device] });
  };
  const [, type, number] =
    /^(cpu|cuda|meta)(?::(0|[1-9]\d{0,2}))?$/.exec(device) ??
    fail(`unknown device ${describeValue(device)}: expected 'cpu', 'cuda' or 'cuda:<number>'`);
  const index = Number(number ?? 0);
  if (type === 'cuda') {
    const count = native().deviceCount();
    if (count === 0)
      fail(
        `device '${device}' asks for a GPU, but no CUDA device is available. \`fmoe doctor\` says what is missing`,
      );
    if (index >= count)
      fail(`there is no device '${device}': this machine has ${count}, counted from cuda:0`);
  } else if (index > 0) {
    fail(`there is no device '${device}': there is one ${type}`);
  }
  known.add(device);
  return device;
}
