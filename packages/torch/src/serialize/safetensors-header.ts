// The header of the safetensors format: 8 bytes of little-endian length, then JSON that maps every tensor's name to its
// dtype, shape and byte range in the data that follows. The ranges must tile the data without holes or overlap.
import { fileError } from './file-errors.js';
import { findDuplicateKey } from './json-keys.js';
import { isStoredDType, type StoredDType, storedBits, storedRank } from './safetensors-dtypes.js';

/** Bytes of the length field in front of the header. */
export const LENGTH_BYTES = 8;
/** Longest header accepted: the limit of the format's reference implementation. */
export const MAX_HEADER_BYTES = 100_000_000;
const METADATA_KEY = '__metadata__';

/** Where one tensor lies in the data. */
export interface TensorEntry {
  storedDType: StoredDType;
  shape: readonly number[];
  /** First byte, counted from the end of the header. */
  start: number;
  /** One past the last byte. */
  end: number;
}

/** What a header says. */
export interface SafetensorsHeader {
  /** In the order of the data. */
  entries: Map<string, TensorEntry>;
  metadata: Record<string, string>;
}

type Fail = (problem: string, cause?: unknown) => never;

const isSize = (value: unknown): value is number => Number.isSafeInteger(value) && (value as number) >= 0;
const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

function parseMetadata(value: unknown, fail: Fail): Record<string, string> {
  if (!isObject(value)) return fail(`${METADATA_KEY} is not an object.`);
  for (const [key, text] of Object.entries(value)) {
    if (typeof text !== 'string') fail(`${METADATA_KEY}.${key} is not a string.`);
  }
  return value as Record<string, string>;
}

function parseEntry(name: string, value: unknown, fail: Fail): TensorEntry {
  if (!isObject(value)) return fail(`the entry of tensor '${name}' is not an object.`);
  const { dtype, shape, data_offsets: offsets, ...rest } = value;
  const [unknownKey] = Object.keys(rest);
  if (unknownKey !== undefined) fail(`tensor '${name}' has an unknown key '${unknownKey}'.`);
  if (!isStoredDType(dtype)) return fail(`tensor '${name}' has an unknown dtype ${JSON.stringify(dtype)}.`);
  if (!Array.isArray(shape) || !shape.every(isSize)) {
    return fail(`tensor '${name}' has shape ${JSON.stringify(shape)}, expected sizes of 0 or more.`);
  }
  if (!Array.isArray(offsets) || offsets.length !== 2 || !offsets.every(isSize)) {
    return fail(`tensor '${name}' has data_offsets ${JSON.stringify(offsets)}, expected [start, end].`);
  }
  const [start, end] = offsets as [number, number];
  const bits = shape.reduce((product: number, size: number) => product * size, storedBits(dtype));
  if (!Number.isSafeInteger(bits)) fail(`tensor '${name}' has shape [${shape}], which is too large.`);
  if (bits % 8 !== 0) fail(`tensor '${name}' of dtype ${dtype} does not fill whole bytes.`);
  if (end - start !== bits / 8) {
    fail(
      `tensor '${name}' of dtype ${dtype} and shape [${shape}] needs ${bits / 8} bytes, its range has ${end - start}.`,
    );
  }
  return { storedDType: dtype, shape, start, end };
}

/** Checks that the byte ranges tile the data, and returns the tensors in its order. */
function checkTiling(
  entries: [string, TensorEntry][],
  dataBytes: number,
  fail: Fail,
): [string, TensorEntry][] {
  const ordered = [...entries].sort(([, a], [, b]) => a.start - b.start || a.end - b.end);
  let covered = 0;
  for (const [name, { start, end }] of ordered) {
    if (end > dataBytes) {
      fail(
        `tensor '${name}' ends at byte ${end}, but there are ${dataBytes} bytes of data. The file is truncated.`,
      );
    }
    if (start < covered) fail(`tensor '${name}' starts at byte ${start}, inside the tensor before it.`);
    if (start > covered) fail(`bytes ${covered} to ${start} before tensor '${name}' belong to no tensor.`);
    covered = end;
  }
  if (covered < dataBytes) fail(`${dataBytes - covered} bytes after the last tensor belong to no tensor.`);
  return ordered;
}

/**
 * Reads the header's length field.
 *
 * @param prefix the file's first 8 bytes, or fewer when it is shorter
 * @param fileBytes size of the whole file
 * @throws FmoeError ERR_FILE when the file is too short or the length cannot be right
 */
export function parseHeaderLength(prefix: Uint8Array, fileBytes: number, op: string, path: string): number {
  if (prefix.length < LENGTH_BYTES) {
    throw fileError(op, path, `the file has ${fileBytes} bytes and is no safetensors file: 8 are the least.`);
  }
  const length = new DataView(prefix.buffer, prefix.byteOffset, LENGTH_BYTES).getBigUint64(0, true);
  if (length > BigInt(MAX_HEADER_BYTES)) {
    const isZip = prefix[0] === 0x50 && prefix[1] === 0x4b;
    const hint = isZip ? ' It begins like a zip archive, as files of torch.save do.' : '';
    const problem = `its header would be ${length} bytes long, and ${MAX_HEADER_BYTES} are the most.`;
    throw fileError(op, path, `this is no safetensors file: ${problem}${hint}`);
  }
  if (BigInt(LENGTH_BYTES) + length > BigInt(fileBytes)) {
    const problem = `the header should have ${length} bytes, but only ${fileBytes - LENGTH_BYTES} follow.`;
    throw fileError(op, path, `${problem} The file is truncated or no safetensors file.`);
  }
  return Number(length);
}

/**
 * Parses and checks a header.
 *
 * @param header the JSON bytes
 * @param dataBytes bytes of the file behind the header
 * @throws FmoeError ERR_FILE naming the first thing that is wrong
 */
export function parseHeader(
  header: Uint8Array,
  dataBytes: number,
  op: string,
  path: string,
): SafetensorsHeader {
  const fail: Fail = (problem, cause) => {
    throw fileError(op, path, problem, cause);
  };
  let text: string;
  let parsed: unknown;
  try {
    text = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(header);
    parsed = JSON.parse(text);
  } catch (error) {
    return fail('its header is not JSON in UTF-8. The file is damaged or no safetensors file.', error);
  }
  if (!isObject(parsed)) return fail('its header is not a JSON object.');
  const duplicate = findDuplicateKey(text);
  if (duplicate !== undefined) fail(`the name '${duplicate}' occurs twice in its header.`);
  const { [METADATA_KEY]: metadata = {}, ...tensors } = parsed;
  const entries = Object.entries(tensors).map(([name, value]): [string, TensorEntry] => [
    name,
    parseEntry(name, value, fail),
  ]);
  return {
    entries: new Map(checkTiling(entries, dataBytes, fail)),
    metadata: parseMetadata(metadata, fail),
  };
}

/** A tensor to be written. */
export interface TensorLayout {
  name: string;
  storedDType: StoredDType;
  shape: readonly number[];
}

/**
 * The order of tensors in the data: larger elements first, so that all stay aligned, and names by their UTF-8 bytes.
 * It is the order of the format's reference implementation, so equal tensors make equal files.
 */
export function compareLayouts(a: TensorLayout, b: TensorLayout): number {
  const byRank = storedRank(b.storedDType) - storedRank(a.storedDType);
  return byRank || Buffer.compare(Buffer.from(a.name), Buffer.from(b.name));
}

/**
 * Encodes the length field and the header of tensors laid out one after another; padded with spaces so that the data
 * begins at a multiple of 8 bytes.
 */
export function encodeHeader(layouts: readonly TensorLayout[], metadata: Record<string, string>): Uint8Array {
  const pairs: [string, unknown][] = [];
  const keys = Object.keys(metadata).sort();
  if (keys.length > 0)
    pairs.push([METADATA_KEY, Object.fromEntries(keys.map((key) => [key, metadata[key]]))]);
  let offset = 0;
  for (const { name, storedDType, shape } of layouts) {
    const bytes = shape.reduce((product, size) => product * size, storedBits(storedDType)) / 8;
    pairs.push([name, { dtype: storedDType, shape, data_offsets: [offset, offset + bytes] }]);
    offset += bytes;
  }
  // Built by hand: an object would move names that look like array indices to the front.
  const json = pairs.map(([key, value]) => `${JSON.stringify(key)}:${JSON.stringify(value)}`).join(',');
  const header = Buffer.from(`{${json}}`);
  const padded = Math.ceil(header.length / 8) * 8;
  const encoded = new Uint8Array(LENGTH_BYTES + padded).fill(0x20);
  new DataView(encoded.buffer).setBigUint64(0, BigInt(padded), true);
  encoded.set(header, LENGTH_BYTES);
  return encoded;
}
