import { FmoeError, op, Tensor, tidy, watchDevice, zeros } from '@fmoe/torch';

/*
 * The CUDA kernels read ids, slots, rows, offsets, counts and logits on the device. One that is out of range acts as -1 (as 0
 * for a count) and sets a flag there; the error comes at the next read, or at once with FMOE_CHECK=1.
 */

/** In the order of the flags that `fmoe::take_device_errors` gives. */
const meanings: readonly (readonly [
  code: 'ERR_INDEX' | 'ERR_ARGUMENT',
  argument: string,
  message: string,
])[] = [
  ['ERR_INDEX', 'topIdx', 'topIdx holds an expert outside [-1, N); the slot was dropped'],
  [
    'ERR_INDEX',
    'rowSlot',
    'rowSlot holds a slot outside [-1, T·K), which was taken for padding, or one that slotRow gives another row',
  ],
  [
    'ERR_INDEX',
    'slotRow',
    'slotRow holds a row outside [-1, R), which was taken for dropped, or one that belongs to another slot',
  ],
  [
    'ERR_INDEX',
    'offsets',
    'offsets do not begin with 0, decrease, end past the last row or elsewhere than the rows that have a slot, or do not ' +
      'add up to the counts',
  ],
  ['ERR_ARGUMENT', 'logits', 'logits hold NaN or +inf; the expert was taken for one with -inf'],
  ['ERR_INDEX', 'counts', 'counts hold a negative number, which was taken for 0'],
  ['ERR_INDEX', 'capacity', 'capacity holds a negative number, which was taken for 0'],
  [
    'ERR_ARGUMENT',
    'selectionBias',
    'selectionBias holds NaN or an infinity; the expert was taken for one with -inf',
  ],
];

/** @internal Has the flags of the arguments' device looked at at the next read. */
export function watchKernels(name: string, args: readonly unknown[]): void {
  const onDevice = args.find((arg): arg is Tensor => arg instanceof Tensor);
  if (onDevice === undefined || !onDevice.device.startsWith('cuda')) return;
  const { device } = onDevice;
  watchDevice(`@fmoe/kernels on ${device}`, () => readFlags(name, device));
}

function readFlags(name: string, device: string): FmoeError | undefined {
  const flags = tidy(() => {
    const take = op('fmoe::take_device_errors') as (onDevice: Tensor) => Tensor;
    return Array.from(
      take(zeros([0], { device }))
        .cpu()
        .data(),
      Number,
    );
  });
  const set = flags.indexOf(1);
  if (set < 0) return undefined;
  const [code, argument, message] = meanings[set]!;
  return new FmoeError(
    code,
    `an operator of @fmoe/kernels on ${device}, ${name} or one before it: ${message}. FMOE_CHECK=1 names the call`,
    { op: name, argument },
  );
}
