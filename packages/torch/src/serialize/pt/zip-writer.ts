import { writeSync } from 'node:fs';
import { crc32 } from 'node:zlib';
import { writeFully } from '../atomic-file.js';
import {
  CENTRAL_BYTES,
  CENTRAL_HEADER,
  COUNT_IN_END64,
  END,
  END_BYTES,
  END64,
  END64_BYTES,
  EXTRA_PADDING,
  EXTRA64,
  IN_EXTRA,
  LOCAL_BYTES,
  LOCAL_HEADER,
  LOCATOR64,
  LOCATOR64_BYTES,
} from './zip-format.js';

/** Content begins at multiples of it, so that files can be mapped into memory. */
const ALIGNMENT = 64;
/** 1980-01-01, the zero of the format: equal content gives equal bytes. */
const DATE = 0x21;
const VERSION_64 = 45;
const UTF8_NAME = 0x0800;

interface Written {
  name: Buffer;
  size: number;
  crc: number;
  start: number;
}

/** Writes a zip archive of stored entries to a file descriptor, from its beginning. */
export class ZipWriter {
  readonly #file: number;
  readonly #limit: number;
  readonly #written: Written[] = [];
  #position = 0;

  /** @param limit numbers from here on take 64 bits */
  constructor(file: number, limit = IN_EXTRA) {
    this.#file = file;
    this.#limit = limit;
  }

  /**
   * Adds an entry.
   *
   * @param size bytes of its content
   * @param write hands over the content in pieces
   */
  add(name: string, size: number, write: (piece: (bytes: Uint8Array) => void) => void): void {
    const start = this.#position;
    const encoded = Buffer.from(name);
    const isLarge = size >= this.#limit;
    const sizes = isLarge ? extra64([size, size]) : Buffer.alloc(0);
    const plain = start + LOCAL_BYTES + encoded.length + sizes.length + 4;
    const padding = Buffer.alloc(4 + ((ALIGNMENT - (plain % ALIGNMENT)) % ALIGNMENT));
    padding.writeUInt16LE(EXTRA_PADDING, 0);
    padding.writeUInt16LE(padding.length - 4, 2);
    const header = Buffer.alloc(LOCAL_BYTES);
    header.writeUInt32LE(LOCAL_HEADER, 0);
    header.writeUInt16LE(isLarge ? VERSION_64 : 0, 4);
    header.writeUInt16LE(UTF8_NAME, 6);
    header.writeUInt16LE(DATE, 12);
    header.writeUInt32LE(isLarge ? IN_EXTRA : size, 18);
    header.writeUInt32LE(isLarge ? IN_EXTRA : size, 22);
    header.writeUInt16LE(encoded.length, 26);
    header.writeUInt16LE(sizes.length + padding.length, 28);
    this.#write(Buffer.concat([header, encoded, sizes, padding]));
    let crc = 0;
    write((bytes) => {
      crc = crc32(bytes, crc);
      this.#write(bytes);
    });
    // Known only now, and the content is not to be read twice.
    const checksum = Buffer.alloc(4);
    checksum.writeUInt32LE(crc);
    writeSync(this.#file, checksum, 0, 4, start + 14);
    this.#written.push({ name: encoded, size, crc, start });
  }

  /** Adds an entry from memory. */
  addBytes(name: string, bytes: Uint8Array): void {
    this.add(name, bytes.length, (piece) => piece(bytes));
  }

  /** Writes the directory. */
  finish(): void {
    const start = this.#position;
    for (const entry of this.#written) this.#write(this.#directoryEntry(entry));
    const size = this.#position - start;
    const count = this.#written.length;
    const isLarge = count >= COUNT_IN_END64 || size >= this.#limit || start >= this.#limit;
    if (isLarge) this.#writeEnd64(start, size, count);
    const end = Buffer.alloc(END_BYTES);
    end.writeUInt32LE(END, 0);
    end.writeUInt16LE(isLarge ? COUNT_IN_END64 : count, 8);
    end.writeUInt16LE(isLarge ? COUNT_IN_END64 : count, 10);
    end.writeUInt32LE(isLarge ? IN_EXTRA : size, 12);
    end.writeUInt32LE(isLarge ? IN_EXTRA : start, 16);
    this.#write(end);
  }

  #directoryEntry({ name, size, crc, start }: Written): Buffer {
    const large = [size, size, start].filter((number) => number >= this.#limit);
    const extra = large.length > 0 ? extra64(large) : Buffer.alloc(0);
    const short = (number: number): number => (number >= this.#limit ? IN_EXTRA : number);
    const header = Buffer.alloc(CENTRAL_BYTES);
    header.writeUInt32LE(CENTRAL_HEADER, 0);
    header.writeUInt16LE(VERSION_64, 4);
    header.writeUInt16LE(large.length > 0 ? VERSION_64 : 0, 6);
    header.writeUInt16LE(UTF8_NAME, 8);
    header.writeUInt16LE(DATE, 14);
    header.writeUInt32LE(crc, 16);
    header.writeUInt32LE(short(size), 20);
    header.writeUInt32LE(short(size), 24);
    header.writeUInt16LE(name.length, 28);
    header.writeUInt16LE(extra.length, 30);
    header.writeUInt32LE(short(start), 42);
    return Buffer.concat([header, name, extra]);
  }

  #writeEnd64(start: number, size: number, count: number): void {
    const end = Buffer.alloc(END64_BYTES);
    const locator = Buffer.alloc(LOCATOR64_BYTES);
    end.writeUInt32LE(END64, 0);
    end.writeBigUInt64LE(BigInt(END64_BYTES - 12), 4);
    end.writeUInt16LE(VERSION_64, 12);
    end.writeUInt16LE(VERSION_64, 14);
    end.writeBigUInt64LE(BigInt(count), 24);
    end.writeBigUInt64LE(BigInt(count), 32);
    end.writeBigUInt64LE(BigInt(size), 40);
    end.writeBigUInt64LE(BigInt(start), 48);
    locator.writeUInt32LE(LOCATOR64, 0);
    locator.writeBigUInt64LE(BigInt(this.#position), 8);
    locator.writeUInt32LE(1, 16);
    this.#write(Buffer.concat([end, locator]));
  }

  #write(bytes: Uint8Array): void {
    writeFully(this.#file, bytes);
    this.#position += bytes.length;
  }
}

function extra64(numbers: readonly number[]): Buffer {
  const extra = Buffer.alloc(4 + 8 * numbers.length);
  extra.writeUInt16LE(EXTRA64, 0);
  extra.writeUInt16LE(8 * numbers.length, 2);
  numbers.forEach((number, index) => {
    extra.writeBigUInt64LE(BigInt(number), 4 + 8 * index);
  });
  return extra;
}
