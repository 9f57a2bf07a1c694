import { FmoeError } from '@fmoe/torch';
import { indexError, type Vocabulary, type VocabularyData } from './vocabulary.js';

/** The symbol that stands for every character which the vocabulary does not have. */
export const unknownCharacter = '\uFFFD';

/**
 * A vocabulary of Unicode characters (code points) in ascending order, and last one symbol for unknown ones.
 */
export class CharacterVocabulary implements Vocabulary {
  readonly unit = 'character';
  readonly characters: readonly string[];
  readonly #ids = new Map<string, number>();

  /**
   * @param characters the known characters, one code point each, without repeats
   * @throws FmoeError ERR_ARGUMENT when an entry is not one character or occurs twice
   */
  constructor(characters: readonly string[]) {
    this.characters = [...characters.filter((c) => c !== unknownCharacter), unknownCharacter];
    for (const [id, character] of this.characters.entries()) {
      if ([...character].length !== 1) {
        throw new FmoeError(
          'ERR_ARGUMENT',
          `CharacterVocabulary: entry ${id} is ${JSON.stringify(character)}, expected one character.`,
        );
      }
      if (this.#ids.has(character)) {
        throw new FmoeError(
          'ERR_ARGUMENT',
          `CharacterVocabulary: ${JSON.stringify(character)} occurs twice.`,
        );
      }
      this.#ids.set(character, id);
    }
  }

  /** The vocabulary of all characters that occur in the pieces of a text. */
  static fromText(pieces: Iterable<string>): CharacterVocabulary {
    const seen = new Set<string>();
    for (const piece of pieces) for (const character of piece) seen.add(character);
    const ascending = [...seen].sort((a, b) => a.codePointAt(0)! - b.codePointAt(0)!);
    return new CharacterVocabulary(ascending);
  }

  get size(): number {
    return this.characters.length;
  }

  /** Id of one character; the unknown symbol's where it is not in the vocabulary. */
  id(character: string): number {
    return this.#ids.get(character) ?? this.size - 1;
  }

  encode(text: string): Int32Array {
    return Int32Array.from(text, (character) => this.id(character));
  }

  decode(ids: Iterable<number>): string {
    let text = '';
    for (const id of ids) {
      const character = this.characters[id];
      if (character === undefined) throw indexError(id, this.size);
      text += character;
    }
    return text;
  }

  toJSON(): VocabularyData {
    return { kind: 'character', characters: this.characters.slice(0, -1), unknown: unknownCharacter };
  }
}
