import type { DType } from '../tensor/dtype.js';

/**
 * Every dtype of the format with its bits an element, in the format's own order (by alignment, then history).
 * Writers put the largest first, so that every tensor starts aligned.
 */
const storedDTypes = [
  ['BOOL', 8],
  ['F4', 4],
  ['F6_E2M3', 6],
  ['F6_E3M2', 6],
  ['U8', 8],
  ['I8', 8],
  ['F8_E5M2', 8],
  ['F8_E4M3', 8],
  ['F8_E8M0', 8],
  ['F8_E4M3FNUZ', 8],
  ['F8_E5M2FNUZ', 8],
  ['I16', 16],
  ['U16', 16],
  ['F16', 16],
  ['BF16', 16],
  ['I32', 32],
  ['U32', 32],
  ['F32', 32],
  ['C64', 64],
  ['F64', 64],
  ['I64', 64],
  ['U64', 64],
] as const;

/** A dtype's name inside a safetensors file. */
export type StoredDType = (typeof storedDTypes)[number][0];

const bits: ReadonlyMap<string, number> = new Map(storedDTypes);
const ranks: ReadonlyMap<string, number> = new Map(storedDTypes.map(([name], rank) => [name, rank]));

const storedOf: Record<DType, StoredDType> = {
  float64: 'F64',
  float32: 'F32',
  float16: 'F16',
  bfloat16: 'BF16',
  int64: 'I64',
  int32: 'I32',
  int16: 'I16',
  int8: 'I8',
  uint8: 'U8',
  bool: 'BOOL',
};

const dtypeOf: ReadonlyMap<string, DType> = new Map(
  Object.entries(storedOf).map(([dtype, stored]) => [stored, dtype as DType]),
);

export const isStoredDType = (name: unknown): name is StoredDType =>
  typeof name === 'string' && bits.has(name);

/** Bits an element takes in the file. */
export const storedBits = (name: StoredDType): number => bits.get(name)!;

/** Place in the writing order; higher is written first. */
export const storedRank = (name: StoredDType): number => ranks.get(name)!;

/** The file's name of a tensor dtype. */
export const toStoredDType = (dtype: DType): StoredDType => storedOf[dtype];

/** The tensor dtype, or undefined for one that exists in the format only. */
export const fromStoredDType = (name: StoredDType): DType | undefined => dtypeOf.get(name);
