import { tidy } from '../scope.js';
import { empty } from '../tensor/factories.js';
import type { Tensor } from '../tensor/tensor.js';
import { checkNumber, checkShape } from './check.js';
import { checkModuleOptions, type FactoryOptions, factoryOptions } from './factory-options.js';
import { rmsNorm } from './functional/normalization.js';
import { ones_ } from './init.js';
import { Module } from './module.js';
import { pythonBool, pythonFloat, pythonTuple } from './module-print.js';
import { Parameter } from './parameter.js';

export interface RMSNormOptions extends FactoryOptions {
  /** Added to the mean square; null (the default) means the machine epsilon of the input's dtype. */
  eps?: number | null;
  /** Learn a weight. Default true. */
  elementwiseAffine?: boolean;
}

/** Root-mean-square normalisation over the last dimensions. The weight starts as ones. */
export class RMSNorm extends Module {
  readonly normalizedShape: readonly number[];
  readonly eps: number | null;
  readonly elementwiseAffine: boolean;
  /** `[*normalizedShape]`, or null */
  weight: Parameter | null = null;

  /** @throws FmoeError `ERR_ARGUMENT` when `normalizedShape` is no size or list of sizes. */
  constructor(normalizedShape: number | readonly number[], options: RMSNormOptions = {}) {
    super();
    checkModuleOptions('RMSNorm', options, ['eps', 'elementwiseAffine']);
    this.normalizedShape = checkShape('RMSNorm', 'normalizedShape', normalizedShape);
    const eps = options.eps ?? null;
    this.eps = eps === null ? null : checkNumber('RMSNorm', 'eps', eps);
    this.elementwiseAffine = options.elementwiseAffine ?? true;
    if (this.elementwiseAffine) {
      this.weight = tidy(() => new Parameter(empty([...this.normalizedShape], factoryOptions(options))));
    }
    this.resetParameters();
  }

  /** Sets the initial values again. */
  resetParameters(): void {
    if (this.weight) ones_(this.weight);
  }

  /** @param input `[..., *normalizedShape]` @returns the same shape */
  override forward(input: Tensor): Tensor {
    return rmsNorm(input, this.normalizedShape, this.weight, this.eps);
  }

  override extraRepr(): string {
    const eps = this.eps === null ? 'None' : pythonFloat(this.eps);
    const affine = pythonBool(this.elementwiseAffine);
    return `${pythonTuple(this.normalizedShape)}, eps=${eps}, elementwise_affine=${affine}`;
  }
}
