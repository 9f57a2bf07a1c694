import { FmoeError } from '@fmoe/torch';
import { indexError, type Vocabulary, type VocabularyData } from './vocabulary.js';

/** The symbol that ends every line. */
export const endOfLine = '<eos>';
const unknownWord = '<unk>';

/** What Python's `str.split()` separates words at; JavaScript's `\s` differs in five characters. */
const separators =
  '\\t\\n\\x0b\\f\\r\\x1c-\\x1f \\x85\\xa0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000';
const word = new RegExp(`[^${separators}]+`, 'g');

/** The words of a line. */
export function splitWords(line: string): string[] {
  return line.match(word) ?? [];
}

/** A vocabulary of words, with `<eos>` at the end of every line. */
export class WordVocabulary implements Vocabulary {
  readonly unit = 'word';
  readonly words: readonly string[];
  readonly #ids = new Map<string, number>();

  /**
   * @param words word of each id, without repeats
   * @throws FmoeError ERR_ARGUMENT when a word occurs twice
   */
  constructor(words: readonly string[]) {
    this.words = words;
    for (const [id, entry] of words.entries()) {
      if (this.#ids.has(entry)) {
        throw new FmoeError('ERR_ARGUMENT', `WordVocabulary: ${JSON.stringify(entry)} occurs twice.`);
      }
      this.#ids.set(entry, id);
    }
  }

  get size(): number {
    return this.words.length;
  }

  /**
   * Id of one word; that of `<unk>` where the word is not known.
   *
   * @throws FmoeError ERR_ARGUMENT when the word is unknown and there is no `<unk>`
   */
  id(entry: string): number {
    const id = this.#ids.get(entry) ?? this.#ids.get(unknownWord);
    if (id === undefined) {
      throw new FmoeError(
        'ERR_ARGUMENT',
        `encode: the word ${JSON.stringify(entry)} is not in the vocabulary, which has no ${unknownWord} symbol.`,
      );
    }
    return id;
  }

  encode(text: string): Int32Array {
    const ids: number[] = [];
    for (const [index, line] of text.split('\n').entries()) {
      if (index > 0) ids.push(this.id(endOfLine));
      for (const entry of splitWords(line)) ids.push(this.id(entry));
    }
    return Int32Array.from(ids);
  }

  decode(ids: Iterable<number>): string {
    let text = '';
    let lineStart = true;
    for (const id of ids) {
      const entry = this.words[id];
      if (entry === undefined) throw indexError(id, this.size);
      const ends = entry === endOfLine;
      text += ends ? '\n' : lineStart ? entry : ` ${entry}`;
      lineStart = ends;
    }
    return text;
  }

  toJSON(): VocabularyData {
    return { kind: 'word', words: [...this.words] };
  }
}
