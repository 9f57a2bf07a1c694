import { tidy } from '../scope.js';
import { empty } from '../tensor/factories.js';
import type { Tensor } from '../tensor/tensor.js';
import { checkNumber, checkShape } from './check.js';
import { checkModuleOptions, type FactoryOptions, factoryOptions } from './factory-options.js';
import { layerNorm } from './functional/normalization.js';
import { ones_, zeros_ } from './init.js';
import { Module } from './module.js';
import { pythonBool, pythonFloat, pythonTuple } from './module-print.js';
import { Parameter } from './parameter.js';

export interface LayerNormOptions extends FactoryOptions {
  /** Added to the variance. Default 1e-5. */
  eps?: number;
  /** Learn a weight (and a bias). Default true. */
  elementwiseAffine?: boolean;
  /** With `elementwiseAffine`, learn a bias as well. Default true. */
  bias?: boolean;
}

/** Layer normalisation over the last dimensions. The weight starts as ones, the bias as zeros. */
export class LayerNorm extends Module {
  readonly normalizedShape: readonly number[];
  readonly eps: number;
  readonly elementwiseAffine: boolean;
  /** `[*normalizedShape]`, or null */
  weight: Parameter | null = null;
  /** `[*normalizedShape]`, or null */
  bias: Parameter | null = null;

  /** @throws FmoeError `ERR_ARGUMENT` when `normalizedShape` is no size or list of sizes. */
  constructor(normalizedShape: number | readonly number[], options: LayerNormOptions = {}) {
    super();
    checkModuleOptions('LayerNorm', options, ['eps', 'elementwiseAffine', 'bias']);
    this.normalizedShape = checkShape('LayerNorm', 'normalizedShape', normalizedShape);
    this.eps = checkNumber('LayerNorm', 'eps', options.eps ?? 1e-5);
    this.elementwiseAffine = options.elementwiseAffine ?? true;
    const make = () => tidy(() => new Parameter(empty([...this.normalizedShape], factoryOptions(options))));
    if (this.elementwiseAffine) {
      this.weight = make();
      if (options.bias ?? true) this.bias = make();
    }
    this.resetParameters();
  }

  /** Sets the initial values again. */
  resetParameters(): void {
    if (this.weight) ones_(this.weight);
    if (this.bias) zeros_(this.bias);
  }

  /** @param input `[..., *normalizedShape]` @returns the same shape */
  override forward(input: Tensor): Tensor {
    return layerNorm(input, this.normalizedShape, this.weight, this.bias, this.eps);
  }

  override extraRepr(): string {
    const affine = pythonBool(this.elementwiseAffine);
    return `${pythonTuple(this.normalizedShape)}, eps=${pythonFloat(this.eps)}, elementwise_affine=${affine}`;
  }
}
