/** Writes the few kinds of protocol-buffer fields that event files need. */
export class MessageWriter {
  readonly #parts: Uint8Array[] = [];

  /** A field of kind double; 0 is its default and takes no bytes. */
  double(field: number, value: number): this {
    if (value === 0) return this;
    const bytes = new Uint8Array(8);
    new DataView(bytes.buffer).setFloat64(0, value, true);
    return this.#key(field, 1).#push(bytes);
  }

  /** A field of kind float that is part of a choice, so that 0 is written too. */
  float(field: number, value: number): this {
    const bytes = new Uint8Array(4);
    new DataView(bytes.buffer).setFloat32(0, value, true);
    return this.#key(field, 5).#push(bytes);
  }

  /** A field of kind int32, int64 or enum; not negative. 0 is its default and takes no bytes. */
  integer(field: number, value: number): this {
    if (value === 0) return this;
    return this.#key(field, 0).#push(varint(value));
  }

  /** A field of kind string. */
  string(field: number, value: string): this {
    return this.bytes(field, new TextEncoder().encode(value));
  }

  /** A field of kind bytes or a finished message. */
  bytes(field: number, value: Uint8Array): this {
    return this.#key(field, 2).#push(varint(value.length)).#push(value);
  }

  /** A field that holds another message. */
  message(field: number, write: (message: MessageWriter) => void): this {
    const message = new MessageWriter();
    write(message);
    return this.bytes(field, message.finish());
  }

  /** A packed repeated field of kind double. */
  packedDoubles(field: number, values: readonly number[]): this {
    const bytes = new Uint8Array(8 * values.length);
    const view = new DataView(bytes.buffer);
    for (const [index, value] of values.entries()) view.setFloat64(8 * index, value, true);
    return this.bytes(field, bytes);
  }

  finish(): Uint8Array {
    return concat(this.#parts);
  }

  #key(field: number, wireType: number): this {
    return this.#push(varint(field * 8 + wireType));
  }

  #push(bytes: Uint8Array): this {
    this.#parts.push(bytes);
    return this;
  }
}

function varint(value: number): Uint8Array {
  const bytes: number[] = [];
  let rest = BigInt(value);
  while (rest > 127n) {
    bytes.push(Number(rest & 127n) | 128);
    rest >>= 7n;
  }
  bytes.push(Number(rest));
  return Uint8Array.from(bytes);
}

function concat(parts: readonly Uint8Array[]): Uint8Array {
  const out = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let offset = 0;
  for (const part of parts) {
    out.set(part, offset);
    offset += part.length;
  }
  return out;
}
