/** Shape letters: T tokens, D model width, K top-k. */
import { add, cat, grad, type nn, type Tensor, tensor, zeros } from '@fmoe/torch';
import { expectAllClose } from '@fmoe/torch/testing';
import { type BaseGate, resolveRoute } from '../src/index.js';

/** Runs one row `[1, D]` through one expert. */
export type RowExpert = (expert: number, row: Tensor) => Tensor;

/**
 * The definition of a Mixture-of-Experts, token by token: y_t = Σ_j score_tj · expert_{idx_tj}(x_t). Shares nothing with the
 * layer but the gate.
 */
export function bruteForce(gate: BaseGate, x: Tensor, expert: RowExpert, width = x.shape[1]!): Tensor {
  const { numExpert } = gate;
  const context = { tokens: x.shape[0]!, numExpert, gateName: 'the gate' };
  const { topIdx, topScore } = resolveRoute(gate.forward(x), context);
  const choices = topIdx.toArray() as bigint[][];
  const rows = choices.map((experts, token) => {
    const row = x.narrow(0, token, 1);
    const terms = experts.flatMap((index, slot) =>
      index < 0n ? [] : [expert(Number(index), row).mul(topScore.at(token, slot))],
    );
    return terms.length === 0
      ? zeros([1, width], { dtype: x.dtype, device: x.device })
      : terms.reduce((a, b) => add(a, b));
  });
  return cat(rows, 0);
}

/** Asserts that a layer and a brute force agree in the output and in the gradients of input and all parameters. */
export function expectSameOutputAndGradients(
  layer: nn.Module & { forward(x: Tensor): Tensor },
  x: Tensor,
  reference: (x: Tensor) => Tensor,
  weights: (output: Tensor) => Tensor,
): void {
  const names = ['input', ...[...layer.namedParameters()].map(([name]) => name)];
  const inputs = [x, ...layer.parameters()];
  const gradients = (output: Tensor) =>
    grad(output.mul(weights(output)).sum(), inputs, { allowUnused: true });
  const actual = layer.forward(x);
  const expected = reference(x);
  expectAllClose(actual, expected, { rtol: 1e-12, atol: 1e-12 });
  const wanted = gradients(expected);
  gradients(actual).forEach((gradient, index) => {
    // The brute force never touches an expert without tokens, and then the gradient is zero by definition.
    const target = wanted[index] ?? zeros(inputs[index]!.shape, { dtype: 'float64' });
    if (gradient === null) throw new Error(`${names[index]} has no gradient`);
    try {
      expectAllClose(gradient, target, { rtol: 1e-12, atol: 1e-12 });
    } catch (error) {
      throw new Error(`gradient of ${names[index]}: ${(error as Error).message}`);
    }
  });
}

/** A fixed and uneven weighting, so that the gradient of an output is not the same everywhere. */
export function unevenWeights(output: Tensor): Tensor {
  const [rows, columns] = output.shape as [number, number];
  const values = Array.from({ length: rows }, (_, r) =>
    Array.from({ length: columns }, (_, c) => Math.sin(1 + r * 0.7 + c * 1.3)),
  );
  return tensor(values, { dtype: 'float64', device: output.device });
}
