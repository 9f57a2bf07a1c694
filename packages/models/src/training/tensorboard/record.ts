import { maskedCrc32c } from './crc32c.js';

/**
 * One TFRecord frame: length (uint64, little endian), checksum of the length, the data, checksum of the data.
 */
export function frameRecord(data: Uint8Array): Uint8Array {
  const frame = new Uint8Array(12 + data.length + 4);
  const view = new DataView(frame.buffer);
  view.setBigUint64(0, BigInt(data.length), true);
  view.setUint32(8, maskedCrc32c(frame.subarray(0, 8)), true);
  frame.set(data, 12);
  view.setUint32(12 + data.length, maskedCrc32c(data), true);
  return frame;
}
