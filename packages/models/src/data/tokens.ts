/** A stream of token ids in the narrowest typed array that holds the vocabulary. */
export type TokenStream = Uint8Array | Uint16Array | Int32Array;

/** An empty stream of `length` ids for a vocabulary of `size` symbols. */
export function allocateTokens(length: number, size: number): TokenStream {
  if (size <= 0x100) return new Uint8Array(length);
  if (size <= 0x10000) return new Uint16Array(length);
  return new Int32Array(length);
}

/** The stream with every symbol replaced by `idOf(symbol)`, which is asked once for each different symbol. */
export function encodeTokens(
  symbols: Int32Array,
  size: number,
  idOf: (symbol: number) => number,
): TokenStream {
  const out = allocateTokens(symbols.length, size);
  const known = new Map<number, number>();
  for (let i = 0; i < symbols.length; i++) {
    const symbol = symbols[i]!;
    let id = known.get(symbol);
    if (id === undefined) {
      id = idOf(symbol);
      known.set(symbol, id);
    }
    out[i] = id;
  }
  return out;
}

/** Appends integers to a buffer that doubles when full; the size of a corpus is not known before it is read. */
export class TokenBuilder {
  #buffer = new Int32Array(1 << 16);
  #length = 0;

  get length(): number {
    return this.#length;
  }

  push(symbol: number): void {
    if (this.#length === this.#buffer.length) {
      const larger = new Int32Array(this.#buffer.length * 2);
      larger.set(this.#buffer);
      this.#buffer = larger;
    }
    this.#buffer[this.#length] = symbol;
    this.#length += 1;
  }

  /** All that was pushed; a view that the next push may leave behind. */
  symbols(): Int32Array {
    return this.#buffer.subarray(0, this.#length);
  }
}
