import { fstatSync } from 'node:fs';
import { fileError } from '../file-errors.js';
import { readExactly } from '../read-exactly.js';
import {
  CENTRAL_BYTES,
  CENTRAL_HEADER,
  COUNT_IN_END64,
  END,
  END_BYTES,
  END64,
  END64_BYTES,
  EXTRA64,
  IN_EXTRA,
  LOCAL_BYTES,
  LOCAL_HEADER,
  LOCATOR64,
  LOCATOR64_BYTES,
} from './zip-format.js';

/** A stored entry of a zip archive. */
export interface ZipEntry {
  name: string;
  /** Bytes of its content. */
  size: number;
  /** CRC-32 of its content. */
  crc: number;
  /** Where its local header begins. */
  headerStart: number;
}

/** Longest comment that can follow the end record. */
const MAX_COMMENT_BYTES = 0xffff;
/** More than any file of tensors needs; a damaged number is not to fill the memory. */
const MAX_DIRECTORY_BYTES = 1 << 28;

/**
 * The entries of a zip archive.
 *
 * @param file an open file descriptor
 * @throws FmoeError ERR_FILE when it is no zip archive, is damaged, or has an entry that is compressed or encrypted
 */
export function readZipDirectory(op: string, path: string, file: number): ZipEntry[] {
  const fail = (problem: string): never => {
    throw fileError(op, path, problem);
  };
  const fileBytes = fstatSync(file).size;
  const read = (start: number, length: number): Buffer => {
    if (!(start >= 0 && start + length <= fileBytes)) fail('it is truncated or damaged.');
    const bytes = Buffer.alloc(length);
    readExactly(op, path, file, bytes, start);
    return bytes;
  };
  const tailStart = Math.max(0, fileBytes - END_BYTES - MAX_COMMENT_BYTES);
  const tail = read(tailStart, fileBytes - tailStart);
  let at = tail.length - END_BYTES;
  while (at >= 0 && tail.readUInt32LE(at) !== END) at--;
  if (at < 0) fail('it is no zip archive, or truncated.');
  let count = tail.readUInt16LE(at + 10);
  let size = tail.readUInt32LE(at + 12);
  let start = tail.readUInt32LE(at + 16);
  if (count === COUNT_IN_END64 || size === IN_EXTRA || start === IN_EXTRA) {
    const locator = read(tailStart + at - LOCATOR64_BYTES, LOCATOR64_BYTES);
    if (locator.readUInt32LE(0) !== LOCATOR64) fail('its 64-bit directory is missing.');
    const end64 = read(number64(locator, 8), END64_BYTES);
    if (end64.readUInt32LE(0) !== END64) fail('its 64-bit directory is damaged.');
    count = number64(end64, 32);
    size = number64(end64, 40);
    start = number64(end64, 48);
  }
  if (size > MAX_DIRECTORY_BYTES) fail('its directory is damaged.');
  const directory = read(start, size);
  const entries: ZipEntry[] = [];
  for (let position = 0; entries.length < count; ) {
    if (position + CENTRAL_BYTES > size || directory.readUInt32LE(position) !== CENTRAL_HEADER) {
      fail('its directory is damaged.');
    }
    const nameEnd = position + CENTRAL_BYTES + directory.readUInt16LE(position + 28);
    const extraEnd = nameEnd + directory.readUInt16LE(position + 30);
    if (extraEnd > size) fail('its directory is damaged.');
    const name = directory.toString('utf8', position + CENTRAL_BYTES, nameEnd);
    if ((directory.readUInt16LE(position + 8) & 1) !== 0) fail(`its entry ${name} is encrypted.`);
    if (directory.readUInt16LE(position + 10) !== 0) fail(`its entry ${name} is compressed.`);
    const numbers = [directory.readUInt32LE(position + 24), directory.readUInt32LE(position + 42)];
    const stored = directory.readUInt32LE(position + 20);
    const fields = [numbers[0]!, stored, numbers[1]!];
    widen(fields, directory.subarray(nameEnd, extraEnd));
    const [entrySize, storedSize, headerStart] = fields as [number, number, number];
    if (entrySize !== storedSize || headerStart + LOCAL_BYTES + entrySize > fileBytes) {
      fail(`its entry ${name} is truncated or damaged.`);
    }
    entries.push({ name, size: entrySize, crc: directory.readUInt32LE(position + 16), headerStart });
    position = extraEnd + directory.readUInt16LE(position + 32);
  }
  return entries;
}

/** Where the content of an entry begins. */
export function findContent(op: string, path: string, file: number, entry: ZipEntry): number {
  const header = Buffer.alloc(LOCAL_BYTES);
  readExactly(op, path, file, header, entry.headerStart);
  if (header.readUInt32LE(0) !== LOCAL_HEADER)
    throw fileError(op, path, `its entry ${entry.name} is damaged.`);
  return entry.headerStart + LOCAL_BYTES + header.readUInt16LE(26) + header.readUInt16LE(28);
}

/** Puts the numbers of the 64-bit extra field, in their order, in the places of those that stand for them. */
function widen(fields: number[], extra: Buffer): void {
  for (let at = 0; at + 4 <= extra.length; at += 4 + extra.readUInt16LE(at + 2)) {
    if (extra.readUInt16LE(at) !== EXTRA64) continue;
    let next = at + 4;
    fields.forEach((value, index) => {
      if (value !== IN_EXTRA || next + 8 > extra.length) return;
      fields[index] = number64(extra, next);
      next += 8;
    });
    return;
  }
}

/** A 64-bit number; one that is not exact is past every file's end all the same. */
function number64(bytes: Buffer, at: number): number {
  return Number(bytes.readBigUInt64LE(at));
}
