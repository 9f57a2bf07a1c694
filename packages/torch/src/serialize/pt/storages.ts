import type { DType } from '../../tensor/dtype.js';

const names: Readonly<Record<DType, string>> = {
  float64: 'DoubleStorage',
  float32: 'FloatStorage',
  float16: 'HalfStorage',
  bfloat16: 'BFloat16Storage',
  int64: 'LongStorage',
  int32: 'IntStorage',
  int16: 'ShortStorage',
  int8: 'CharStorage',
  uint8: 'ByteStorage',
  bool: 'BoolStorage',
};

const dtypes: ReadonlyMap<string, DType> = new Map(
  Object.entries(names).map(([dtype, name]) => [name, dtype as DType]),
);

/** PyTorch's class of the memory of tensors of a dtype. */
export const storageName = (dtype: DType): string => names[dtype];

/** The dtype of such a class, or undefined for one that tensors do not have here. */
export const storageDType = (name: string): DType | undefined => dtypes.get(name);
