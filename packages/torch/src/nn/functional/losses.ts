import { FmoeError } from '../../errors.js';
import { tidy } from '../../scope.js';
import type { Tensor } from '../../tensor/tensor.js';
import { checkChoice, checkNumber, type Reduction } from '../check.js';
import {
  diagnose,
  requireFloating,
  requireSameDevice,
  requireSameDtype,
  requireShape,
  requireTensors,
  sameShape,
  shapeOf,
} from '../diagnose.js';
import { lazyOperator } from '../lazy-operator.js';

/** `none`: one value per element; `mean` (the default) or `sum` over all of them. */
export interface ReductionOption {
  reduction?: Reduction;
}

type Pairwise = [Tensor, Tensor, number];

const mseOperator = lazyOperator<Pairwise>('aten::mse_loss');
const l1Operator = lazyOperator<Pairwise>('aten::l1_loss');
const smoothL1Operator = lazyOperator<[...Pairwise, number]>('aten::smooth_l1_loss');
const huberOperator = lazyOperator<[...Pairwise, number]>('aten::huber_loss');
const klDivOperator = lazyOperator<[...Pairwise, boolean]>('aten::kl_div');
const bceOperator = lazyOperator<[Tensor, Tensor, Tensor | null, Tensor | null, number]>(
  'aten::binary_cross_entropy_with_logits',
);

const broadcastOperator = lazyOperator<[Tensor[]], [Tensor, Tensor]>('aten::broadcast_tensors');

const REDUCTIONS = ['none', 'mean', 'sum'] as const;

/** The number by which ATen knows a reduction; `ERR_ARGUMENT` for any other string. */
export function reductionCode(operation: string, reduction: Reduction = 'mean'): number {
  return REDUCTIONS.indexOf(checkChoice(operation, 'reduction', reduction, REDUCTIONS));
}

/** (input - target)². Shapes broadcast, with a warning. */
export function mseLoss(input: Tensor, target: Tensor, options: ReductionOption = {}): Tensor {
  const code = reductionCode('mseLoss', options.reduction);
  return elementwise('mseLoss', input, target, (a, b) => mseOperator(a, b, code));
}

/** |input - target|. Shapes broadcast, with a warning. */
export function l1Loss(input: Tensor, target: Tensor, options: ReductionOption = {}): Tensor {
  const code = reductionCode('l1Loss', options.reduction);
  return elementwise('l1Loss', input, target, (a, b) => l1Operator(a, b, code));
}

/** 0.5 d² / beta where d = |input - target| is below `beta` (default 1), else d - beta / 2. Shapes broadcast, with a warning. */
export function smoothL1Loss(
  input: Tensor,
  target: Tensor,
  options: ReductionOption & { beta?: number } = {},
): Tensor {
  const { beta = 1, reduction } = options;
  const code = reductionCode('smoothL1Loss', reduction);
  if (!(checkNumber('smoothL1Loss', 'beta', beta) >= 0)) {
    throw new FmoeError('ERR_ARGUMENT', `smoothL1Loss: beta must not be negative, got ${beta}.`, {
      op: 'smoothL1Loss',
      argument: 'beta',
    });
  }
  return elementwise('smoothL1Loss', input, target, (a, b) => smoothL1Operator(a, b, code, beta));
}

/** 0.5 d² where d = |input - target| is at most `delta` (default 1), else delta · (d - delta / 2). Shapes broadcast, with a warning. */
export function huberLoss(
  input: Tensor,
  target: Tensor,
  options: ReductionOption & { delta?: number } = {},
): Tensor {
  const { delta = 1, reduction } = options;
  const code = reductionCode('huberLoss', reduction);
  if (!(checkNumber('huberLoss', 'delta', delta) > 0)) {
    throw new FmoeError('ERR_ARGUMENT', `huberLoss: delta must be positive, got ${delta}.`, {
      op: 'huberLoss',
      argument: 'delta',
    });
  }
  return elementwise('huberLoss', input, target, (a, b) => huberOperator(a, b, code, delta));
}

export interface BinaryCrossEntropyWithLogitsOptions extends ReductionOption {
  /** Factor of each element's loss; broadcasts to the input. */
  weight?: Tensor | null;
  /** Factor of the positive part; broadcasts to the input. */
  posWeight?: Tensor | null;
}

/**
 * -(target · log σ(input) + (1 - target) · log(1 - σ(input))), computed stably from logits.
 *
 * @throws FmoeError `ERR_SHAPE` unless target and input have the same shape.
 */
export function binaryCrossEntropyWithLogits(
  input: Tensor,
  target: Tensor,
  options: BinaryCrossEntropyWithLogitsOptions = {},
): Tensor {
  const operation = 'binaryCrossEntropyWithLogits';
  const code = reductionCode(operation, options.reduction);
  const { weight = null, posWeight = null } = options;
  requireTensors(operation, { input, target }, { weight, posWeight });
  // The operator itself would broadcast, which hides mistakes.
  requireShape(
    operation,
    sameShape(input.shape, target.shape),
    `target ${shapeOf(target)} must have the shape of the input ${shapeOf(input)}.`,
    target,
    input,
  );
  return pairwise(operation, input, target, () => bceOperator(input, target, weight, posWeight, code));
}

export interface KlDivOptions {
  /** As elsewhere, and `batchmean`: the sum divided by the size of the first dimension. Default `mean`. */
  reduction?: Reduction | 'batchmean';
  /** The target holds log probabilities. Default false. */
  logTarget?: boolean;
}

/**
 * The Kullback-Leibler divergence, element by element target · (log target - input).
 *
 * `batchmean` is what agrees with the divergence's definition; `mean` also divides by the number of classes.
 *
 * @param input log probabilities
 * @param target probabilities, or log probabilities with `logTarget`
 */
export function klDiv(input: Tensor, target: Tensor, options: KlDivOptions = {}): Tensor {
  const { reduction = 'mean', logTarget = false } = options;
  checkChoice('klDiv', 'reduction', reduction, [...REDUCTIONS, 'batchmean'] as const);
  const code = reductionCode('klDiv', reduction === 'batchmean' ? 'sum' : reduction);
  const result = pairwise('klDiv', input, target, () => klDivOperator(input, target, code, logTarget));
  const batch = input.shape[0];
  if (reduction !== 'batchmean' || batch === undefined) return result;
  const mean = result.div(batch);
  result.dispose();
  return mean;
}

/** Broadcasts first, so that gradients come back in each input's own shape, and warns: it is rarely meant. */
function elementwise(
  operation: string,
  input: Tensor,
  target: Tensor,
  call: (input: Tensor, target: Tensor) => Tensor,
): Tensor {
  return pairwise(operation, input, target, () => {
    if (sameShape(input.shape, target.shape)) return call(input, target);
    return tidy(() => {
      const [a, b] = broadcastOperator([input, target]);
      process.emitWarning(
        `${operation}: input ${shapeOf(input)} and target ${shapeOf(target)} differ in shape and were broadcast.`,
      );
      return call(a, b);
    });
  });
}

function pairwise(operation: string, input: Tensor, target: Tensor, call: () => Tensor): Tensor {
  try {
    return call();
  } catch (error) {
    throw diagnose(error, () => {
      requireTensors(operation, { input, target });
      requireSameDevice(operation, { input, target });
      requireShape(
        operation,
        broadcastable(input.shape, target.shape),
        `input ${shapeOf(input)} and target ${shapeOf(target)} do not go together.`,
        input,
        target,
      );
      requireFloating(operation, { input, target });
      requireSameDtype(operation, { input, target });
    });
  }
}

function broadcastable(a: readonly number[], b: readonly number[]): boolean {
  const shared = Math.min(a.length, b.length);
  for (let i = 1; i <= shared; i++) {
    const [left, right] = [a.at(-i), b.at(-i)];
    if (left !== right && left !== 1 && right !== 1) return false;
  }
  return true;
}
