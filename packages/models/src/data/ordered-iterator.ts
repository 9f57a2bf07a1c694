/** Shape letters: T segment length, B batch columns, L length of a column, X extended context. */
import { FmoeError, fromTypedArray, type Tensor } from '@fmoe/torch';
import type { TokenStream } from './tokens.js';

/** Settings of {@link OrderedIterator}. */
export interface OrderedIteratorOptions {
  /** Number of columns B that the stream is split into. */
  batchSize: number;
  /** Segment length T. */
  targetLength: number;
  /** Tokens X before the segment that the model reads again; 0 when left out. */
  extendedLength?: number | undefined;
  /** Device of the tensors; `'cpu'` when left out. */
  device?: string | undefined;
}

/** One segment. */
export interface Batch {
  /** Tokens read, `[X+T, B]` int64 (fewer than X+T at the ends of a column). */
  data: Tensor;
  /** Tokens to predict, `[T, B]` int64: the stream shifted by one. */
  target: Tensor;
  /** Whether this segment is the first of a pass over the stream, so that memories start anew. */
  first: boolean;
}

/** Where an {@link OrderedIterator} stands, as plain JSON. */
export interface IteratorState {
  /** Passes over the stream that are finished. */
  epoch: number;
  /** Index in the columns of the next segment's first token. */
  position: number;
}

/**
 * Walks a stream in order: the stream is split into B columns of equal length L (the remainder is left out) and
 * the columns are read side by side, T tokens at a time, as Transformer-XL lays out its data. The last segment of
 * a pass may be shorter. Nothing is drawn at random: the state is two numbers.
 */
export class OrderedIterator {
  readonly batchSize: number;
  readonly targetLength: number;
  readonly extendedLength: number;
  readonly device: string;
  /** Tokens L of each column. */
  readonly columnLength: number;
  /** Segments of one pass. */
  readonly segments: number;
  readonly #stream: TokenStream;
  #epoch = 0;
  #position = 0;

  /**
   * @throws FmoeError ERR_ARGUMENT when a size is not a positive integer
   * @throws FmoeError ERR_FILE when the stream is too short for B columns of two tokens
   */
  constructor(stream: TokenStream, options: OrderedIteratorOptions) {
    this.#stream = stream;
    this.batchSize = checkedSize('batchSize', options.batchSize, 1);
    this.targetLength = checkedSize('targetLength', options.targetLength, 1);
    this.extendedLength = checkedSize('extendedLength', options.extendedLength ?? 0, 0);
    this.device = options.device ?? 'cpu';
    this.columnLength = Math.floor(stream.length / this.batchSize);
    if (this.columnLength < 2) {
      throw new FmoeError(
        'ERR_FILE',
        `The text is too short: ${stream.length} tokens do not fill ${this.batchSize} columns of at least 2. ` +
          'Lower the batch size or give more text.',
      );
    }
    this.segments = Math.ceil((this.columnLength - 1) / this.targetLength);
  }

  /** The next segment; after the last one of a pass the first one follows. */
  next(): Batch {
    if (this.#position >= this.columnLength - 1) {
      this.#position = 0;
      this.#epoch += 1;
    }
    const from = this.#position;
    const to = Math.min(from + this.targetLength, this.columnLength - 1);
    this.#position = to;
    return {
      data: this.#rows(Math.max(0, from - this.extendedLength), to),
      target: this.#rows(from + 1, to + 1),
      first: from === 0,
    };
  }

  /** The segments of one whole pass from the start; leaves the position of {@link next} as it is. */
  *pass(): Generator<Batch, void, undefined> {
    const kept = this.state();
    this.restore({ epoch: kept.epoch, position: 0 });
    try {
      for (let i = 0; i < this.segments; i++) {
        yield this.next();
      }
    } finally {
      this.restore(kept);
    }
  }

  /** Where the iterator stands. */
  state(): IteratorState {
    return { epoch: this.#epoch, position: this.#position };
  }

  /**
   * Goes on where {@link OrderedIterator.state} was taken.
   *
   * @throws FmoeError ERR_ARGUMENT when the position is not one of this stream
   */
  restore(state: IteratorState): void {
    const { epoch, position } = state;
    const fits = Number.isInteger(position) && position >= 0 && position < this.columnLength;
    if (!fits || !Number.isInteger(epoch) || epoch < 0) {
      throw new FmoeError(
        'ERR_ARGUMENT',
        `The saved data position (epoch ${epoch}, token ${position}) does not fit columns of ` +
          `${this.columnLength} tokens. Was it saved with other data or another batch size?`,
      );
    }
    this.#epoch = epoch;
    this.#position = position;
  }

  /** Rows `from .. to - 1` of the columns, `[to - from, B]` int64. */
  #rows(from: number, to: number): Tensor {
    const { batchSize, columnLength } = this;
    const values = new BigInt64Array((to - from) * batchSize);
    // Ids are not negative: writing the low words is enough, and spares a BigInt for each token.
    const low = new Int32Array(values.buffer);
    for (let column = 0; column < batchSize; column++) {
      const start = column * columnLength;
      for (let row = from; row < to; row++) {
        low[2 * ((row - from) * batchSize + column)] = this.#stream[start + row]!;
      }
    }
    const tensor = fromTypedArray(values, [to - from, batchSize]);
    return this.device === 'cpu' ? tensor : tensor.to(this.device);
  }
}

function checkedSize(name: string, value: number, least: number): number {
  if (!Number.isInteger(value) || value < least) {
    throw new FmoeError(
      'ERR_ARGUMENT',
      `OrderedIterator: ${name} is ${value}, expected an integer from ${least}.`,
    );
  }
  return value;
}
