import { FmoeError } from '@fmoe/torch';

/** What one token of a corpus is; it decides the metric: bits per character or byte, perplexity per word. */
export type TokenUnit = 'character' | 'byte' | 'word';

/** A vocabulary as plain JSON, kept in the run folder so that text can be generated without the corpus. */
export type VocabularyData =
  | { kind: 'character'; characters: string[]; unknown: string }
  | { kind: 'byte'; bytes: number[] }
  | { kind: 'word'; words: string[] };

/** Turns text into token ids and back. */
export interface Vocabulary {
  readonly unit: TokenUnit;
  /** Number of symbols; ids are `0 .. size - 1`. */
  readonly size: number;
  /**
   * Token ids of a text.
   *
   * @throws FmoeError ERR_ARGUMENT when a symbol is unknown and the vocabulary has no symbol for unknown ones
   */
  encode(text: string): Int32Array;
  /**
   * Text of token ids.
   *
   * @throws FmoeError ERR_INDEX when an id is not in the vocabulary
   */
  decode(ids: Iterable<number>): string;
  toJSON(): VocabularyData;
}

/**
 * Ids in order of frequency, most frequent first and ties in order of first appearance: the order in which
 * Transformer-XL numbers symbols, so that its embeddings fit.
 *
 * @param counts how often each symbol occurred, in order of first appearance
 * @returns the symbols' old ids in their new order
 */
export function byFrequency(counts: ArrayLike<number>): number[] {
  const order = Array.from({ length: counts.length }, (_, id) => id);
  // Array.prototype.sort is stable, so that equal counts keep the order of first appearance.
  return order.sort((a, b) => counts[b]! - counts[a]!);
}

/** The error for a token id outside a vocabulary of `size` symbols. */
export function indexError(id: number, size: number): FmoeError {
  return new FmoeError('ERR_INDEX', `decode: token id ${id} is outside the vocabulary (0 to ${size - 1}).`);
}
