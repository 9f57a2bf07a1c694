import { checkOptions } from '../check.js';
import type { Tensor } from '../tensor/tensor.js';
import { checkChoice, checkCount, checkNumber } from './check.js';
import {
  elu,
  gelu,
  glu,
  type InplaceOption,
  leakyRelu,
  logSoftmax,
  relu,
  sigmoid,
  silu,
  softmax,
  softplus,
  tanh,
} from './functional/activations.js';
import { Module } from './module.js';
import { pythonFloat } from './module-print.js';

/** max(x, 0). */
export class ReLU extends Module {
  readonly inplace: boolean;

  constructor(options: InplaceOption = {}) {
    super();
    checkOptions('ReLU', options, ['inplace']);
    this.inplace = options.inplace ?? false;
  }

  override forward(input: Tensor): Tensor {
    return relu(input, this);
  }

  override extraRepr(): string {
    return this.inplace ? 'inplace=True' : '';
  }
}

/** x Φ(x), exactly (`'none'`, the default) or by the tanh formula (`'tanh'`). */
export class GELU extends Module {
  readonly approximate: 'none' | 'tanh';

  /** @throws FmoeError `ERR_ARGUMENT` for any other `approximate`. */
  constructor(options: { approximate?: 'none' | 'tanh' } = {}) {
    super();
    checkOptions('GELU', options, ['approximate']);
    this.approximate = checkChoice('GELU', 'approximate', options.approximate ?? 'none', ['none', 'tanh']);
  }

  override forward(input: Tensor): Tensor {
    return gelu(input, this);
  }

  override extraRepr(): string {
    return `approximate='${this.approximate}'`;
  }
}

/** x · sigmoid(x), also called swish. */
export class SiLU extends Module {
  readonly inplace: boolean;

  constructor(options: InplaceOption = {}) {
    super();
    checkOptions('SiLU', options, ['inplace']);
    this.inplace = options.inplace ?? false;
  }

  override forward(input: Tensor): Tensor {
    return silu(input, this);
  }

  override extraRepr(): string {
    return this.inplace ? 'inplace=True' : '';
  }
}

/** 1 / (1 + exp(-x)). */
export class Sigmoid extends Module {
  override forward(input: Tensor): Tensor {
    return sigmoid(input);
  }
}

/** The hyperbolic tangent. */
export class Tanh extends Module {
  override forward(input: Tensor): Tensor {
    return tanh(input);
  }
}

/** exp(x) / Σ exp(x) along `dim`. */
export class Softmax extends Module {
  readonly dim: number;

  /** @throws FmoeError `ERR_ARGUMENT` when `dim` is not given. */
  constructor(dim: number) {
    super();
    this.dim = checkDim('Softmax', dim);
  }

  override forward(input: Tensor): Tensor {
    return softmax(input, this.dim);
  }

  override extraRepr(): string {
    return `dim=${this.dim}`;
  }
}

/** log(softmax(x)) along `dim`. */
export class LogSoftmax extends Module {
  readonly dim: number;

  /** @throws FmoeError `ERR_ARGUMENT` when `dim` is not given. */
  constructor(dim: number) {
    super();
    this.dim = checkDim('LogSoftmax', dim);
  }

  override forward(input: Tensor): Tensor {
    return logSoftmax(input, this.dim);
  }

  override extraRepr(): string {
    return `dim=${this.dim}`;
  }
}

/** x where x is positive, else `negativeSlope` (default 0.01) · x. */
export class LeakyReLU extends Module {
  readonly negativeSlope: number;
  readonly inplace: boolean;

  constructor(negativeSlope = 0.01, options: InplaceOption = {}) {
    super();
    checkOptions('LeakyReLU', options, ['inplace']);
    this.negativeSlope = checkNumber('LeakyReLU', 'negativeSlope', negativeSlope);
    this.inplace = options.inplace ?? false;
  }

  override forward(input: Tensor): Tensor {
    return leakyRelu(input, this.negativeSlope, this);
  }

  override extraRepr(): string {
    return `negative_slope=${this.negativeSlope}${this.inplace ? ', inplace=True' : ''}`;
  }
}

/** x where x is positive, else `alpha` (default 1) · (exp(x) - 1). */
export class ELU extends Module {
  readonly alpha: number;
  readonly inplace: boolean;

  constructor(alpha = 1, options: InplaceOption = {}) {
    super();
    checkOptions('ELU', options, ['inplace']);
    this.alpha = checkNumber('ELU', 'alpha', alpha);
    this.inplace = options.inplace ?? false;
  }

  override forward(input: Tensor): Tensor {
    return elu(input, this.alpha, this);
  }

  override extraRepr(): string {
    return `alpha=${pythonFloat(this.alpha)}${this.inplace ? ', inplace=True' : ''}`;
  }
}

/** log(1 + exp(beta · x)) / beta, and x itself where beta · x exceeds `threshold`. */
export class Softplus extends Module {
  readonly beta: number;
  readonly threshold: number;

  constructor(beta = 1, threshold = 20) {
    super();
    this.beta = checkNumber('Softplus', 'beta', beta);
    this.threshold = checkNumber('Softplus', 'threshold', threshold);
  }

  override forward(input: Tensor): Tensor {
    return softplus(input, this.beta, this.threshold);
  }

  override extraRepr(): string {
    return `beta=${pythonFloat(this.beta)}, threshold=${pythonFloat(this.threshold)}`;
  }
}

/** a · sigmoid(b), where a and b are the halves of the input along `dim` (default -1). */
export class GLU extends Module {
  readonly dim: number;

  constructor(dim = -1) {
    super();
    this.dim = checkDim('GLU', dim);
  }

  override forward(input: Tensor): Tensor {
    return glu(input, this.dim);
  }

  override extraRepr(): string {
    return `dim=${this.dim}`;
  }
}

function checkDim(operation: string, dim: number): number {
  return checkCount(operation, 'dim', dim, Number.MIN_SAFE_INTEGER);
}
