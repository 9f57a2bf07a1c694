import { checkFunction, checkOptions, refusePromise } from './check.js';
import { checkDevice } from './devices/device.js';
import { FmoeError } from './errors.js';
import { native } from './native/index.js';
import { type DType, dtypeCode, dtypeName } from './tensor/dtype.js';
import { guarded } from './tensor/tensor-base.js';

/** How {@link autocast} computes. */
export interface AutocastOptions {
  /** `cpu` or `cuda`. Default: `cpu`. */
  device?: string;
  /** `bfloat16` or `float16`. Default: `bfloat16`. */
  dtype?: DType;
  /** Default: true. False switches an outer autocast off. */
  enabled?: boolean;
}

/** The state of one device type. */
export type AutocastState = Required<AutocastOptions>;

/**
 * Runs `body` with matrix products and convolutions in a narrow dtype and sensitive operators (softmax, losses, norms) in
 * float32, as libtorch's autocast lists say. Backward needs no autocast of its own.
 *
 * @throws FmoeError `ERR_ARGUMENT` when `body` returns a promise; `ERR_DTYPE` for another dtype.
 */
export function autocast<Result>(options: AutocastOptions, body: () => Result): Result {
  checkOptions('autocast', options, ['device', 'dtype', 'enabled']);
  checkFunction('autocast', 'body', body);
  const { device = 'cpu', dtype = 'bfloat16', enabled = true } = options;
  // Autocast of a GPU that is not there does nothing, so that one program runs on both.
  if (device !== 'cuda') checkDevice('autocast', device);
  if (dtype !== 'bfloat16' && dtype !== 'float16') {
    throw new FmoeError('ERR_DTYPE', `autocast(): computes in bfloat16 or float16, not in ${dtype}`, {
      op: 'autocast',
    });
  }
  const [wasEnabled, previous] = guarded('autocast', () =>
    native().enterAutocast(device, enabled ? dtypeCode(dtype) : -1),
  );
  try {
    const result = body();
    refusePromise('autocast', result, 'but the mode ends with the call');
    return result;
  } finally {
    native().exitAutocast(device, wasEnabled, previous);
  }
}

/** The autocast of each device type as it is now. */
export function autocastStates(): AutocastState[] {
  return ['cpu', 'cuda'].map((device) => {
    const code = native().autocastState(device);
    return { device, dtype: code < 0 ? 'bfloat16' : dtypeName(code), enabled: code >= 0 };
  });
}
