import { tidy } from '../scope.js';
import { empty } from '../tensor/factories.js';
import type { Tensor } from '../tensor/tensor.js';
import { checkCount } from './check.js';
import { checkModuleOptions, type FactoryOptions, factoryOptions } from './factory-options.js';
import { linear } from './functional/linear.js';
import { calculateFanInAndFanOut, kaimingUniform_, uniform_ } from './init.js';
import { Module } from './module.js';
import { pythonBool } from './module-print.js';
import { Parameter } from './parameter.js';

export interface LinearOptions extends FactoryOptions {
  /** Add a learned bias. Default true. */
  bias?: boolean;
}

/**
 * y = x Aᵀ + b.
 *
 * Both `weight` and `bias` start uniform in ±1 / sqrt(inFeatures).
 */
export class Linear extends Module {
  readonly inFeatures: number;
  readonly outFeatures: number;
  /** `[outFeatures, inFeatures]` */
  weight: Parameter;
  /** `[outFeatures]`, or null */
  bias: Parameter | null;

  /** @throws FmoeError `ERR_ARGUMENT` when a size is no non-negative integer. */
  constructor(inFeatures: number, outFeatures: number, options: LinearOptions = {}) {
    super();
    checkModuleOptions('Linear', options, ['bias']);
    this.inFeatures = checkCount('Linear', 'inFeatures', inFeatures);
    this.outFeatures = checkCount('Linear', 'outFeatures', outFeatures);
    const place = factoryOptions(options);
    this.weight = tidy(() => new Parameter(empty([outFeatures, inFeatures], place)));
    this.bias = (options.bias ?? true) ? tidy(() => new Parameter(empty([outFeatures], place))) : null;
    this.resetParameters();
  }

  /** Draws new initial values. */
  resetParameters(): void {
    kaimingUniform_(this.weight, { a: Math.sqrt(5) });
    if (!this.bias) return;
    const { fanIn } = calculateFanInAndFanOut(this.weight);
    const bound = fanIn > 0 ? 1 / Math.sqrt(fanIn) : 0;
    uniform_(this.bias, -bound, bound);
  }

  /** @param input `[..., inFeatures]` @returns `[..., outFeatures]` */
  override forward(input: Tensor): Tensor {
    return linear(input, this.weight, this.bias);
  }

  override extraRepr(): string {
    const bias = pythonBool(this.bias !== null);
    return `in_features=${this.inFeatures}, out_features=${this.outFeatures}, bias=${bias}`;
  }
}
