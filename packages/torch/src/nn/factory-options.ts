import { checkOptions } from '../check.js';
import type { DType } from '../tensor/dtype.js';

/** Where and in which dtype a module makes its parameters: float32 on the CPU unless given. */
export interface FactoryOptions {
  dtype?: DType;
  device?: string;
}

/** Options of a module that makes parameters: those of the factory and its own; else `ERR_ARGUMENT`. */
export function checkModuleOptions(owner: string, options: object, names: readonly string[]): void {
  checkOptions(owner, options, [...names, 'dtype', 'device']);
}

/** The options of a tensor factory out of a module's options, which hold more. */
export function factoryOptions(options: FactoryOptions): FactoryOptions {
  return {
    ...(options.dtype === undefined ? {} : { dtype: options.dtype }),
    ...(options.device === undefined ? {} : { device: options.device }),
  };
}
