import { describe } from 'vitest';
import { cuda } from '../devices/cuda.js';

/** A device that a suite runs on. */
export type TestDevice = 'cpu' | 'cuda';

const devices: readonly TestDevice[] = ['cpu', 'cuda'];

/** Why a suite cannot run on a device here, or undefined when it can. */
export function missingReason(device: TestDevice): string | undefined {
  return device === 'cpu' || cuda.isAvailable() ? undefined : 'no CUDA device is available';
}

const reported = new Set<string>();

/** A suite that is skipped, with the reason in its title and printed once, where there is a reason against it. */
export function describeUnless(reason: string | undefined, name: string, body: () => void): void {
  if (reason === undefined) {
    describe(name, body);
    return;
  }
  if (!reported.has(reason)) console.info(`skipped: ${reason}`);
  reported.add(reason);
  describe.skip(`${name} (skipped: ${reason})`, body);
}

/**
 * A suite that is repeated for every device. Where a device is missing its tests are skipped, not left out, and the
 * reason is printed.
 *
 * @param body registers the tests; it must make no tensors outside of them, as it also runs where the device is missing
 */
export function describeEachDevice(name: string, body: (device: TestDevice) => void): void {
  for (const device of devices) {
    describeUnless(missingReason(device), `${name} (${device})`, () => body(device));
  }
}
