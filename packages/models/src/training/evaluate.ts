import { noGrad, type Tensor, tidy, zeros } from '@fmoe/torch';
import { OrderedIterator } from '../data/ordered-iterator.js';
import type { TokenStream } from '../data/tokens.js';
import { SegmentMemory } from '../transformer-xl/index.js';
import type { LanguageModel } from './language-model.js';
import { nextTurn } from './next-turn.js';

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
  const { batchSize, tgtLen, device, signal } = options;
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
  model.eval();
  model.resetLength({ memLen: options.memLen ?? memLen });
  try {
    for (let segment = 0; segment < segments; segment++) {
      tokens += tidy(() => noGrad(() => addSegment(model, iterator, memory, sum)));
      await nextTurn();
      if (signal?.aborted) return undefined;
    }
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
): number {
  const { data, target } = iterator.next();
  const { loss, mems } = model.forward(data, target, memory.tensors);
  memory.replace(mems);
  sum.add_(loss.to('float64').sum());
  return target.numel();
}
