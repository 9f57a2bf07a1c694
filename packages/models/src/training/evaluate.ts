import { noGrad, type Tensor, tidy, zeros } from '@fmoe/torch';
import { OrderedIterator } from '../data/ordered-iterator.js';
import type { TokenStream } from '../data/tokens.js';
import { SegmentMemory } from '../transformer-xl/index.js';
import type { LanguageModel } from './language-model.js';
import { nextTurn } from './next-turn.js';
import type { TrainingRanks } from './training-ranks.js';

/** How a stream is evaluated. */
export interface EvaluationOptions {
  batchSize: number;
  /** Tokens of a segment. */
  tgtLen: number;
  /** Tokens of memory; the model's own when left out. */
  memLen?: number | undefined;
  device: string;
  /** Most segments; 0 or left out for the whole stream. */
  maxSegments?: number | undefined;
  /** Breaks the evaluation off. */
  signal?: AbortSignal | undefined;
  /** Ranks that share the columns, if there are enough; all get the same result. */
  ranks?: TrainingRanks | undefined;
}

/** Loss on a stream. */
export interface Evaluation {
  /** Mean cross-entropy per token, nats. */
  loss: number;
  /** Tokens that were predicted. */
  tokens: number;
}

/**
 * Mean loss of a model on a stream, in evaluation mode, with a memory of its own that starts empty. The stream is read in
 * `batchSize` columns, whose remainder is left out.
 *
 * @returns `undefined` when it was broken off
 * @throws FmoeError ERR_FILE when the stream is too short for that many columns
 */
export async function evaluate(
  model: LanguageModel,
  stream: TokenStream,
  options: EvaluationOptions,
): Promise<Evaluation | undefined> {
  const { batchSize, tgtLen, device, signal, ranks } = options;
  const { training, memLen, extLen } = model;
  const iterator = new OrderedIterator(stream, {
    batchSize,
    targetLength: tgtLen,
    extendedLength: extLen,
    device,
  });
  const segments = Math.min(options.maxSegments || Number.POSITIVE_INFINITY, iterator.segments);
  const memory = new SegmentMemory();
  const sum = zeros([], { dtype: 'float64', device });
  let tokens = 0;
  const isShared = ranks !== undefined && batchSize >= ranks.size;
  const columns = isShared ? ranks.columnsOf(batchSize) : undefined;
  model.eval();
  model.resetLength({ memLen: options.memLen ?? memLen });
  try {
    for (let segment = 0; segment < segments; segment++) {
      tokens += tidy(() => noGrad(() => addSegment(model, iterator, memory, sum, columns)));
      await nextTurn();
      const isAborted = signal?.aborted ?? false;
      if (ranks?.any(isAborted) ?? isAborted) return undefined;
    }
    if (isShared) ranks.sum_(sum);
    return { loss: sum.item() / tokens, tokens };
  } finally {
    memory.clear();
    sum.dispose();
    model.resetLength({ memLen });
    model.train(training);
  }
}

function addSegment(
  model: LanguageModel,
  iterator: OrderedIterator,
  memory: SegmentMemory,
  sum: Tensor,
  columns?: readonly [number, number],
): number {
  const batch = iterator.next();
  const own = (rows: Tensor): Tensor =>
    columns === undefined ? rows : rows.narrow(1, columns[0], columns[1] - columns[0]).contiguous();
  const { loss, mems } = model.forward(own(batch.data), own(batch.target), memory.tensors);
  memory.replace(mems);
  sum.add_(loss.to('float64').sum());
  return batch.target.numel();
}
