import { FmoeError } from '../errors.js';
import type { MemoryStatistics } from '../native/binding.js';
import { type NativeEvent, type NativeStream, native } from '../native/index.js';
import { guarded } from '../tensor/tensor-base.js';

function available(): void {
  if (native().deviceCount() === 0) {
    throw new FmoeError('ERR_DEVICE', 'no CUDA device is available. `fmoe doctor` says what is missing');
  }
}

function onDevice<Result>(op: string, body: () => Result): Result {
  available();
  return guarded(`cuda.${op}`, body);
}

/** A queue of work on a GPU. */
export class Stream {
  /** @internal */
  readonly native: NativeStream;
  readonly device: number;

  /** @internal */
  constructor(stream: NativeStream, device: number) {
    this.native = stream;
    this.device = device;
  }

  /** Waits until everything queued here is done. */
  synchronize(): void {
    onDevice('Stream.synchronize', () => native().synchronizeStream(this.native));
  }

  /** Whether everything queued here is done. */
  query(): boolean {
    return onDevice('Stream.query', () => native().queryStream(this.native));
  }

  /** Lets later work of this stream wait for an event; the caller goes on. */
  waitEvent(event: Event): void {
    onDevice('Stream.waitEvent', () => native().waitEvent(event.native, this.native));
  }

  /** Lets later work of this stream wait for what another has queued so far. */
  waitStream(other: Stream): void {
    this.waitEvent(new Event().record(other));
  }
}

/** A point in a stream's queue. */
export class Event {
  /** @internal */
  readonly native: NativeEvent;

  constructor({ enableTiming = false }: { enableTiming?: boolean } = {}) {
    this.native = onDevice('Event', () => native().newEvent(enableTiming));
  }

  /** Marks the present end of a stream's queue. Default: the current stream. */
  record(stream: Stream = cuda.currentStream()): this {
    onDevice('Event.record', () => native().recordEvent(this.native, stream.native));
    return this;
  }

  /** Waits until the queue has passed this point. */
  synchronize(): void {
    onDevice('Event.synchronize', () => native().synchronizeEvent(this.native));
  }

  query(): boolean {
    return onDevice('Event.query', () => native().queryEvent(this.native));
  }

  /** Milliseconds from this event to a later one; both made with `enableTiming`. */
  elapsedTime(end: Event): number {
    return onDevice('Event.elapsedTime', () => native().elapsedTime(this.native, end.native));
  }
}

/** GPUs: how many, which one, their memory, streams and events. Tensor code is the same on every device. */
export const cuda = {
  isAvailable: (): boolean => native().deviceCount() > 0,
  deviceCount: (): number => native().deviceCount(),
  currentDevice: (): number => onDevice('currentDevice', () => native().currentDevice()),
  setDevice: (index: number): void => onDevice('setDevice', () => native().setDevice(index)),
  /** Waits until a device has done everything. */
  synchronize: (index?: number): void =>
    onDevice('synchronize', () => native().synchronize(index ?? native().currentDevice())),
  /** Gives cached memory back to the driver. */
  emptyCache: (): void => onDevice('emptyCache', () => native().emptyCache()),
  /** Bytes allocated and reserved, now and at their peak. */
  memoryStatistics: (index?: number): MemoryStatistics =>
    onDevice('memoryStatistics', () => native().memoryStatistics(index ?? native().currentDevice())),
  resetPeakMemory: (index?: number): void =>
    onDevice('resetPeakMemory', () => native().resetPeakMemory(index ?? native().currentDevice())),
  /** A stream from the device's pool. */
  newStream: ({ device, highPriority = false }: { device?: number; highPriority?: boolean } = {}): Stream =>
    onDevice('newStream', () => {
      const index = device ?? native().currentDevice();
      return new Stream(native().newStream(index, highPriority), index);
    }),
  currentStream: (device?: number): Stream =>
    onDevice('currentStream', () => {
      const index = device ?? native().currentDevice();
      return new Stream(native().currentStream(index), index);
    }),
  /** Runs `body` with another current stream. */
  withStream: <Result>(stream: Stream, body: () => Result): Result => {
    const previous = cuda.currentStream(stream.device);
    onDevice('withStream', () => native().setStream(stream.native));
    try {
      return body();
    } finally {
      native().setStream(previous.native);
    }
  },
  Stream,
  Event,
};
