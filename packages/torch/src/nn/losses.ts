import { checkOptions } from '../check.js';
import type { Tensor } from '../tensor/tensor.js';
import type { Reduction } from './check.js';
import {
  type CrossEntropyOptions,
  crossEntropy,
  type NllLossOptions,
  nllLoss,
} from './functional/class-losses.js';
import {
  type BinaryCrossEntropyWithLogitsOptions,
  binaryCrossEntropyWithLogits,
  huberLoss,
  type KlDivOptions,
  klDiv,
  l1Loss,
  mseLoss,
  type ReductionOption,
  reductionCode,
  smoothL1Loss,
} from './functional/losses.js';
import { Module } from './module.js';

/** What all losses share; a wrong `reduction` or an unknown option is an error when the loss is made. */
abstract class Loss extends Module {
  readonly reduction: Reduction;

  /** @param names the options that the loss has besides */
  constructor(options: ReductionOption, ...names: string[]) {
    super();
    checkOptions(new.target.name, options, ['reduction', ...names]);
    this.reduction = options.reduction ?? 'mean';
    reductionCode(new.target.name, this.reduction);
  }
}

/** Cross entropy between logits and class indices or class probabilities; see the function `crossEntropy`. */
export class CrossEntropyLoss extends Loss {
  /** Factor of each class `[C]`: a buffer. */
  declare readonly weight: Tensor | null;
  readonly ignoreIndex: number;
  readonly labelSmoothing: number;

  /** @throws FmoeError `ERR_ARGUMENT` for an unknown `reduction`. */
  constructor(options: CrossEntropyOptions = {}) {
    super(options, 'weight', 'ignoreIndex', 'labelSmoothing');
    this.registerBuffer('weight', options.weight ?? null);
    this.ignoreIndex = options.ignoreIndex ?? -100;
    this.labelSmoothing = options.labelSmoothing ?? 0;
  }

  override forward(input: Tensor, target: Tensor): Tensor {
    return crossEntropy(input, target, this);
  }
}

/** The negative log likelihood of class indices under log probabilities; see the function `nllLoss`. */
export class NLLLoss extends Loss {
  /** Factor of each class `[C]`: a buffer. */
  declare readonly weight: Tensor | null;
  readonly ignoreIndex: number;

  constructor(options: NllLossOptions = {}) {
    super(options, 'weight', 'ignoreIndex');
    this.registerBuffer('weight', options.weight ?? null);
    this.ignoreIndex = options.ignoreIndex ?? -100;
  }

  override forward(input: Tensor, target: Tensor): Tensor {
    return nllLoss(input, target, this);
  }
}

/** The squared difference. */
export class MSELoss extends Loss {
  constructor(options: ReductionOption = {}) {
    super(options);
  }

  override forward(input: Tensor, target: Tensor): Tensor {
    return mseLoss(input, target, this);
  }
}

/** The absolute difference. */
export class L1Loss extends Loss {
  constructor(options: ReductionOption = {}) {
    super(options);
  }

  override forward(input: Tensor, target: Tensor): Tensor {
    return l1Loss(input, target, this);
  }
}

/** Quadratic below `beta` (default 1) and linear above, with slope 1 there. */
export class SmoothL1Loss extends Loss {
  readonly beta: number;

  constructor(options: ReductionOption & { beta?: number } = {}) {
    super(options, 'beta');
    this.beta = options.beta ?? 1;
  }

  override forward(input: Tensor, target: Tensor): Tensor {
    return smoothL1Loss(input, target, this);
  }
}

/** Quadratic up to `delta` (default 1) and linear above, with slope `delta` there. */
export class HuberLoss extends Loss {
  readonly delta: number;

  constructor(options: ReductionOption & { delta?: number } = {}) {
    super(options, 'delta');
    this.delta = options.delta ?? 1;
  }

  override forward(input: Tensor, target: Tensor): Tensor {
    return huberLoss(input, target, this);
  }
}

/** Binary cross entropy of logits. */
export class BCEWithLogitsLoss extends Loss {
  /** Factor of each element: a buffer. */
  declare readonly weight: Tensor | null;
  /** Factor of the positive part: a buffer, under PyTorch's key. */
  declare readonly pos_weight: Tensor | null;

  constructor(options: BinaryCrossEntropyWithLogitsOptions = {}) {
    super(options, 'weight', 'posWeight');
    this.registerBuffer('weight', options.weight ?? null);
    this.registerBuffer('pos_weight', options.posWeight ?? null);
  }

  override forward(input: Tensor, target: Tensor): Tensor {
    const { reduction, weight, pos_weight: posWeight } = this;
    return binaryCrossEntropyWithLogits(input, target, { reduction, weight, posWeight });
  }
}

/** The Kullback-Leibler divergence; see the function `klDiv`. */
export class KLDivLoss extends Module {
  readonly reduction: Reduction | 'batchmean';
  readonly logTarget: boolean;

  constructor(options: KlDivOptions = {}) {
    super();
    checkOptions('KLDivLoss', options, ['reduction', 'logTarget']);
    this.reduction = options.reduction ?? 'mean';
    if (this.reduction !== 'batchmean') reductionCode('KLDivLoss', this.reduction);
    this.logTarget = options.logTarget ?? false;
  }

  override forward(input: Tensor, target: Tensor): Tensor {
    return klDiv(input, target, this);
  }
}
