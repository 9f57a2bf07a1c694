import type { DType } from '../../tensor/dtype.js';
import { storageName } from './storages.js';

/** What is written of a tensor into a pickle. */
export interface PickledTensor {
  dtype: DType;
  shape: readonly number[];
  /** Name of the entry that holds its elements, row-major. */
  key: string;
}

/** Writes a pickle of protocol 2, as PyTorch does, piece by piece. */
export class PickleWriter {
  readonly #parts: Buffer[] = [Buffer.from([0x80, 2])];

  none(): void {
    this.#code('N');
  }

  boolean(value: boolean): void {
    this.#parts.push(Buffer.from([value ? 0x88 : 0x89]));
  }

  integer(value: number | bigint): void {
    if (value >= 0 && value < 0x100) this.#parts.push(Buffer.from([0x4b, Number(value)]));
    else if (value >= -0x80000000 && value <= 0x7fffffff) {
      const bytes = Buffer.from('J\0\0\0\0');
      bytes.writeInt32LE(Number(value), 1);
      this.#parts.push(bytes);
    } else this.#longInteger(BigInt(value));
  }

  #longInteger(value: bigint): void {
    const length = bytesOf(value);
    const bytes = Buffer.alloc(2 + length);
    bytes.writeUInt8(0x8a, 0);
    bytes.writeUInt8(length, 1);
    let rest = BigInt.asUintN(8 * length, value);
    for (let i = 0; i < length; i++, rest >>= 8n) bytes[2 + i] = Number(rest & 0xffn);
    this.#parts.push(bytes);
  }

  float(value: number): void {
    const bytes = Buffer.alloc(9);
    bytes.write('G', 'latin1');
    bytes.writeDoubleBE(value, 1);
    this.#parts.push(bytes);
  }

  string(value: string): void {
    const text = Buffer.from(value);
    const head = Buffer.from('X\0\0\0\0');
    head.writeUInt32LE(text.length, 1);
    this.#parts.push(head, text);
  }

  list(items: readonly unknown[], write: (item: unknown) => void): void {
    this.#code('](');
    for (const item of items) write(item);
    this.#code('e');
  }

  dict(items: Iterable<readonly [string, unknown]>, write: (item: unknown) => void): void {
    this.#code('}(');
    for (const [key, value] of items) {
      this.string(key);
      write(value);
    }
    this.#code('u');
  }

  /** As `torch._utils._rebuild_tensor_v2(storage, offset, size, stride, requires_grad, backward_hooks)`. */
  tensor({ dtype, shape, key }: PickledTensor): void {
    const stride = shape.map((_, at) =>
      shape.slice(at + 1).reduce((product, size) => product * Math.max(size, 1), 1),
    );
    this.#name('torch._utils', '_rebuild_tensor_v2');
    this.#code('((');
    this.string('storage');
    this.#name('torch', storageName(dtype));
    this.string(key);
    this.string('cpu');
    this.integer(shape.reduce((product, size) => product * size, 1));
    this.#code('tQ');
    this.integer(0);
    this.#integers(shape);
    this.#integers(stride);
    this.boolean(false);
    this.#name('collections', 'OrderedDict');
    this.#code(')RtR');
  }

  /** The whole pickle. */
  finish(): Buffer {
    this.#code('.');
    return Buffer.concat(this.#parts);
  }

  #integers(values: readonly number[]): void {
    this.#code('(');
    for (const value of values) this.integer(value);
    this.#code('t');
  }

  #name(module: string, name: string): void {
    this.#code(`c${module}\n${name}\n`);
  }

  #code(text: string): void {
    this.#parts.push(Buffer.from(text, 'latin1'));
  }
}

/** Bytes of the shortest two's complement. */
function bytesOf(value: bigint): number {
  let length = 1;
  while (BigInt.asIntN(8 * length, value) !== value) length++;
  return length;
}
