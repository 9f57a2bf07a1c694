/** Shape letters: Q query length, V vocabulary. */
import { FmoeError, noGrad, type Tensor, tensor, tidy } from '@fmoe/torch';
import type { Vocabulary } from '../data/vocabulary.js';
import { SegmentMemory } from '../transformer-xl/index.js';
import type { LanguageModel } from './language-model.js';
import { nextTurn } from './next-turn.js';

/** How text is drawn. */
export interface GenerationOptions {
  /** Text to go on from; at least one token. */
  prompt: string;
  /** Tokens to draw. */
  length: number;
  /** Below 1 likelier tokens are preferred; 0 always takes the likeliest. Default 1. */
  temperature?: number | undefined;
  /** Draw among this many of the likeliest tokens; 0 for all. Default 0. */
  topK?: number | undefined;
  device: string;
  signal?: AbortSignal | undefined;
}

/**
 * Draws text from a model, token by token, from the default generator of the device.
 *
 * @returns the text after the prompt
 * @throws FmoeError ERR_ARGUMENT when the prompt is empty or has symbols that the vocabulary cannot encode
 */
export async function generate(
  model: LanguageModel,
  vocabulary: Vocabulary,
  options: GenerationOptions,
): Promise<string> {
  const { length, signal } = options;
  const { training } = model;
  const memory = new SegmentMemory();
  const drawn: number[] = [];
  model.eval();
  try {
    let input = vocabulary.encode(options.prompt);
    if (input.length === 0) {
      throw new FmoeError(
        'ERR_ARGUMENT',
        'generate: the prompt is empty; give at least one character or word.',
      );
    }
    while (drawn.length < length && !signal?.aborted) {
      const next = tidy(() => noGrad(() => drawNext(model, memory, input, options)));
      drawn.push(next);
      input = Int32Array.of(next);
      await nextTurn();
    }
    return vocabulary.decode(drawn);
  } finally {
    memory.clear();
    model.train(training);
  }
}

/** Feeds some tokens to the model and draws the one that follows. */
function drawNext(
  model: LanguageModel,
  memory: SegmentMemory,
  input: Int32Array,
  { temperature = 1, topK = 0, device }: GenerationOptions,
): number {
  const data = tensor(Array.from(input), { dtype: 'int64', device }).unsqueeze(1);
  const { logits, mems } = model.predict(data, memory.tensors);
  memory.replace(mems);
  const last = logits
    .select(0, input.length - 1)
    .select(0, 0)
    .float();
  if (temperature === 0) return last.argmax().item();
  const [values, ids] = mostLikely(last.sub(last.max()).div(temperature), topK);
  return ids.select(0, values.softmax(-1).multinomial(1).item()).item();
}

/** The `topK` largest logits (all of them for 0) and their ids. */
function mostLikely(logits: Tensor, topK: number): [Tensor, Tensor] {
  const size = logits.numel();
  return logits.topk(topK > 0 ? Math.min(topK, size) : size, -1);
}
