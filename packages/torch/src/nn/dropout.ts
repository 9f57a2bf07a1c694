import { checkOptions } from '../check.js';
import type { Tensor } from '../tensor/tensor.js';
import { checkProbability } from './check.js';
import type { InplaceOption } from './functional/activations.js';
import { dropout } from './functional/dropout.js';
import { Module } from './module.js';
import { pythonBool } from './module-print.js';

/** Zeroes elements with probability `p` and scales the rest by 1 / (1 - p) in training mode; else the identity. */
export class Dropout extends Module {
  readonly p: number;
  readonly inplace: boolean;

  /** @throws FmoeError `ERR_ARGUMENT` when `p` is not in [0, 1]. */
  constructor(p = 0.5, options: InplaceOption = {}) {
    super();
    checkOptions('Dropout', options, ['inplace']);
    this.p = checkProbability('Dropout', 'p', p);
    this.inplace = options.inplace ?? false;
  }

  /** @param input any shape, floating-point */
  override forward(input: Tensor): Tensor {
    return dropout(input, this.p, this.training, this);
  }

  override extraRepr(): string {
    return `p=${this.p}, inplace=${pythonBool(this.inplace)}`;
  }
}
