import type { Tensor } from '../tensor/tensor.js';
import { Module } from './module.js';

/** Returns its input. It takes the place of a module that is left out. */
export class Identity extends Module {
  override forward(input: Tensor): Tensor {
    return input;
  }
}
