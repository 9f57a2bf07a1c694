import type { DType } from '../tensor/dtype.js';

/** Where and in which dtype a module makes its parameters: float32 on the CPU unless given. */
export interface FactoryOptions {
  dtype?: DType;
  device?: string;
}

/** The options of a tensor factory out of a module's options, which hold more. */
export function factoryOptions(options: FactoryOptions): FactoryOptions {
  return {
    ...(options.dtype === undefined ? {} : { dtype: options.dtype }),
    ...(options.device === undefined ? {} : { device: options.device }),
  };
}
