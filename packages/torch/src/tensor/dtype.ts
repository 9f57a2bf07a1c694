import { FmoeError } from '../errors.js';

/** The element types, by PyTorch's names. */
export type DType =
  | 'float32'
  | 'float64'
  | 'float16'
  | 'bfloat16'
  | 'int64'
  | 'int32'
  | 'int16'
  | 'int8'
  | 'uint8'
  | 'bool';

/** Element types that libtorch may return but that this package neither creates nor reads. */
export type ForeignDType = 'complex32' | 'complex64' | 'complex128' | `scalar-type-${number}`;

/** A typed array that holds tensor data. */
export type TypedArray =
  | Float32Array
  | Float64Array
  | BigInt64Array
  | Int32Array
  | Int16Array
  | Int8Array
  | Uint8Array
  | Uint16Array;

interface DTypeTraits {
  /** c10::ScalarType. */
  readonly code: number;
  readonly bytes: number;
  readonly isFloatingPoint: boolean;
  readonly array: new (buffer: ArrayBuffer, byteOffset?: number, length?: number) => TypedArray;
}

const traits: Readonly<Record<DType, DTypeTraits>> = {
  uint8: { code: 0, bytes: 1, isFloatingPoint: false, array: Uint8Array },
  int8: { code: 1, bytes: 1, isFloatingPoint: false, array: Int8Array },
  int16: { code: 2, bytes: 2, isFloatingPoint: false, array: Int16Array },
  int32: { code: 3, bytes: 4, isFloatingPoint: false, array: Int32Array },
  int64: { code: 4, bytes: 8, isFloatingPoint: false, array: BigInt64Array },
  float16: { code: 5, bytes: 2, isFloatingPoint: true, array: Uint16Array },
  float32: { code: 6, bytes: 4, isFloatingPoint: true, array: Float32Array },
  float64: { code: 7, bytes: 8, isFloatingPoint: true, array: Float64Array },
  bool: { code: 11, bytes: 1, isFloatingPoint: false, array: Uint8Array },
  bfloat16: { code: 15, bytes: 2, isFloatingPoint: true, array: Uint16Array },
};

const names = new Map<number, DType | ForeignDType>([
  ...Object.entries(traits).map(([name, trait]) => [trait.code, name as DType] as const),
  [8, 'complex32'],
  [9, 'complex64'],
  [10, 'complex128'],
]);

/** Every dtype, in the order of libtorch's codes. */
export const dtypes = Object.keys(traits) as readonly DType[];

export function isDType(value: unknown): value is DType {
  return typeof value === 'string' && Object.hasOwn(traits, value);
}

/**
 * Size, class and typed array of a dtype.
 *
 * @throws FmoeError `ERR_DTYPE` for a name that is none.
 */
export function dtypeTraits(dtype: DType): DTypeTraits {
  if (!isDType(dtype)) {
    throw new FmoeError(
      'ERR_DTYPE',
      `unknown dtype '${String(dtype)}': expected one of ${dtypes.join(', ')}`,
    );
  }
  return traits[dtype];
}

/** libtorch's code of a dtype. */
export const dtypeCode = (dtype: DType): number => dtypeTraits(dtype).code;

/** The dtype of libtorch's code. */
export const dtypeName = (code: number): DType => (names.get(code) ?? `scalar-type-${code}`) as DType;

/** Whether a dtype holds real numbers with a fraction (and so can carry gradients). */
export const isFloatingPoint = (dtype: DType): boolean => dtypeTraits(dtype).isFloatingPoint;
