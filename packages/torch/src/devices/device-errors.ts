import { noGrad } from '../autograd/grad-mode.js';
import { op } from '../dispatch/op.js';
import type { FmoeError } from '../errors.js';
import { keep, tidy } from '../scope.js';
import type { Tensor } from '../tensor/tensor.js';

/*
 * Values on a GPU cannot be checked without waiting for it, and a kernel that meets an index out of range ends all use of
 * the GPU for this process. So an operation that takes such values makes them harmless and sets a flag on the device; the
 * error comes where the program next waits for the device anyway, at a read. FMOE_CHECK=1 waits at once, which names the
 * call in the stack trace.
 */

interface PendingError {
  /** A bool without dimensions, on the device. */
  readonly flag: Tensor;
  readonly error: () => FmoeError;
}

const pending = new Map<string, PendingError>();

/** Looks at flags that native code keeps on a device, and clears them. */
type DeviceCheck = () => FmoeError | undefined;

const watched = new Map<string, DeviceCheck>();

/**
 * Has an error thrown at the next read (`item()`, `data()`, `toArray()`, ...) if any element of `bad` is true. Does not
 * wait for the device, unless FMOE_CHECK=1 is set.
 *
 * @param key what is checked; checks of the same key between two reads share one flag and the first one's error
 * @param bad bool, any shape
 */
export function flagOnDevice(key: string, bad: Tensor, error: () => FmoeError): void {
  tidy(() =>
    noGrad(() => {
      const any = op('aten::any')(bad) as Tensor;
      const name = `${key} on ${bad.device}`;
      const earlier = pending.get(name);
      if (earlier) op('aten::logical_or_')(earlier.flag, any);
      else pending.set(name, { flag: keep(any), error });
    }),
  );
  if (process.env['FMOE_CHECK'] === '1') raiseDeviceErrors();
}

/**
 * Has `check` asked at the next read: for native kernels that set flags of their own. Costs nothing on the device until
 * then; with FMOE_CHECK=1 it is asked at once.
 *
 * @param key checks of the same key between two reads are asked once
 * @param check reads the flags, which may wait for the device, clears them and gives the error that they mean, if any
 */
export function watchDevice(key: string, check: DeviceCheck): void {
  watched.set(key, check);
  if (process.env['FMOE_CHECK'] === '1') raiseDeviceErrors();
}

/**
 * Throws what {@link flagOnDevice} and the checks of {@link watchDevice} found since the last time. Waits for the device when there is something to look at.
 *
 * @throws FmoeError the first flagged error
 */
export function raiseDeviceErrors(): void {
  if (pending.size === 0 && watched.size === 0) return;
  // Taken out first: what a check reads may come back here.
  const checks = [...watched.values()];
  watched.clear();
  let first: FmoeError | undefined;
  for (const [name, { flag, error }] of pending) {
    pending.delete(name);
    if (flag.isDisposed) continue;
    const isSet = Boolean(op('aten::item')(flag));
    flag.dispose();
    if (isSet) first ??= error();
  }
  for (const check of checks) {
    const error = check();
    first ??= error;
  }
  if (first) throw first;
}
