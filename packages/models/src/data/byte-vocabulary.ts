import { FmoeError } from '@fmoe/torch';
import { indexError, type Vocabulary, type VocabularyData } from './vocabulary.js';

/** A vocabulary of byte values, for enwik8 and text8. */
export class ByteVocabulary implements Vocabulary {
  readonly unit = 'byte';
  readonly bytes: readonly number[];
  readonly #ids = new Int16Array(256).fill(-1);

  /**
   * @param bytes byte value of each id, without repeats
   * @throws FmoeError ERR_ARGUMENT when a value is not a byte or occurs twice
   */
  constructor(bytes: readonly number[]) {
    this.bytes = [...bytes];
    for (const [id, byte] of bytes.entries()) {
      if (!Number.isInteger(byte) || byte < 0 || byte > 255 || this.#ids[byte] !== -1) {
        throw new FmoeError(
          'ERR_ARGUMENT',
          `ByteVocabulary: entry ${id} is ${byte}; entries are different values from 0 to 255.`,
        );
      }
      this.#ids[byte] = id;
    }
  }

  get size(): number {
    return this.bytes.length;
  }

  encode(text: string): Int32Array {
    return Int32Array.from(new TextEncoder().encode(text), (byte) => {
      const id = this.#ids[byte]!;
      if (id < 0) {
        throw new FmoeError(
          'ERR_ARGUMENT',
          `encode: byte ${byte} (${JSON.stringify(String.fromCharCode(byte))}) does not occur in the corpus that ` +
            'the vocabulary was built from. Leave it out of the text.',
        );
      }
      return id;
    });
  }

  decode(ids: Iterable<number>): string {
    const values = Array.from(ids, (id) => {
      const byte = this.bytes[id];
      if (byte === undefined) throw indexError(id, this.size);
      return byte;
    });
    return new TextDecoder().decode(Uint8Array.from(values));
  }

  toJSON(): VocabularyData {
    return { kind: 'byte', bytes: [...this.bytes] };
  }
}
