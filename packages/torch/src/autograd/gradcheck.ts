import { checkFunction, checkOptions, checkTensors } from '../check.js';
import { FmoeError } from '../errors.js';
import { tidy } from '../scope.js';
import type { Tensor } from '../tensor/tensor.js';
import { grad } from './backward.js';
import { noGrad } from './grad-mode.js';

/** Tolerances of {@link gradcheck}. */
export interface GradcheckOptions {
  /** Step of the central difference. Default: 1e-6. */
  eps?: number;
  /** Default: 1e-5. */
  atol?: number;
  /** Default: 1e-3. */
  rtol?: number;
}

/**
 * Compares the gradients that backward gives with central differences, for every element of every output and of every
 * input that requires a gradient.
 *
 * @param body a deterministic function of the inputs
 * @param inputs contiguous float64 CPU or CUDA tensors; those that require gradients are checked
 * @throws FmoeError `ERR_AUTOGRAD` naming the element with the largest difference; `ERR_DTYPE` for an input that needs a
 * gradient and is not float64.
 */
export function gradcheck(
  body: (...inputs: Tensor[]) => Tensor | readonly Tensor[],
  inputs: readonly Tensor[],
  options: GradcheckOptions = {},
): void {
  checkFunction('gradcheck', 'body', body);
  checkTensors('gradcheck', 'inputs', inputs);
  checkOptions('gradcheck', options, ['eps', 'atol', 'rtol']);
  const { eps = 1e-6, atol = 1e-5, rtol = 1e-3 } = options;
  const checked = inputs.filter((input) => input.requiresGrad);
  if (checked.length === 0) throw new FmoeError('ERR_AUTOGRAD', 'gradcheck(): no input requires a gradient');
  const narrow = checked.find(({ dtype }) => dtype !== 'float64');
  if (narrow !== undefined) {
    throw new FmoeError('ERR_DTYPE', `gradcheck(): needs float64 inputs, got ${narrow.dtype}`, {
      dtypes: [narrow.dtype],
    });
  }
  const evaluate = (): Tensor[] => {
    const outputs = [body(...inputs)].flat() as Tensor[];
    checkTensors('gradcheck', 'the result of body', outputs);
    return outputs;
  };

  const analytic = tidy(() => analyticJacobians(evaluate(), checked));
  checked.forEach((input, inputIndex) => {
    const size = input.numel();
    for (let element = 0; element < size; element++) {
      const numeric = tidy(() => noGrad(() => centralDifference(evaluate, input, element, eps)));
      numeric.forEach((values, output) => {
        values.forEach((expected, position) => {
          const got = analytic[output]![inputIndex]![position]![element]!;
          if (!(Math.abs(got - expected) <= atol + rtol * Math.abs(expected))) {
            throw new FmoeError(
              'ERR_AUTOGRAD',
              `gradcheck(): d output ${output}[${position}] / d input ${inputIndex}[${element}] is ${got} by backward, ` +
                `${expected} by differences of ${eps}`,
            );
          }
        });
      });
    }
  });
}

/** [output][input][output element] → gradient by input element */
function analyticJacobians(outputs: readonly Tensor[], inputs: readonly Tensor[]): Float64Array[][][] {
  return outputs.map((output) => {
    const rows = inputs.map((): Float64Array[] => []);
    const flat = output.reshape([-1]);
    for (let position = 0; position < flat.numel(); position++) {
      const gradients = output.requiresGrad
        ? grad([flat.select(0, position)], inputs, { retainGraph: true, allowUnused: true as boolean })
        : inputs.map(() => null);
      gradients.forEach((gradient, i) => {
        rows[i]!.push(
          gradient === null ? new Float64Array(inputs[i]!.numel()) : Float64Array.from(valuesOf(gradient)),
        );
      });
    }
    return rows;
  });
}

const valuesOf = (tensor: Tensor): Float64Array =>
  tensor.detach().reshape([-1]).to({ dtype: 'float64', device: 'cpu' }).contiguous().data() as Float64Array;

/** The derivative of every output element by one input element. */
function centralDifference(
  evaluate: () => Tensor[],
  input: Tensor,
  element: number,
  eps: number,
): number[][] {
  const cell = input.detach().view([-1]).select(0, element);
  const original = cell.item();
  const at = (value: number): number[][] => {
    cell.fill_(value);
    return evaluate().map((output) => Array.from(valuesOf(output)));
  };
  let above: number[][];
  let below: number[][];
  try {
    above = at(original + eps);
    below = at(original - eps);
  } finally {
    cell.fill_(original);
  }
  return above.map((values, output) => values.map((value, i) => (value - below[output]![i]!) / (2 * eps)));
}
