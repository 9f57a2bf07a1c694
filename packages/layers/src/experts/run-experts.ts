/** Shape letters: D model width, E local experts, R routed rows. */
import { cat, FmoeError, type nn, type Tensor } from '@fmoe/torch';

/**
 * Calls each expert with its own rows. An expert without rows is called as well, so that its parameters get zero
 * gradients rather than none. Reads the offsets on the host.
 *
 * @param experts E modules that map `[r, D]` to `[r, D']`, for any r from 0
 * @param rows `[R, D]`, grouped by expert
 * @param offsets `[E+1]` int64
 * @returns `[R', D']` without the padding rows after the last expert's
 */
export function runExperts(experts: Iterable<nn.Module>, rows: Tensor, offsets: Tensor): Tensor {
  const bounds = Array.from(offsets.cpu().data() as BigInt64Array, Number);
  const outputs = [...experts].map((expert, index) => {
    const start = bounds[index]!;
    const count = bounds[index + 1]! - start;
    const output: unknown = expert.call(rows.narrow(0, start, count));
    checkOutput(output, index, count);
    return output;
  });
  return cat(outputs, 0);
}

function checkOutput(output: unknown, index: number, count: number): asserts output is Tensor {
  const shape = (output as Tensor | null)?.shape;
  if (Array.isArray(shape) && shape.length === 2 && shape[0] === count) return;
  throw new FmoeError(
    'ERR_SHAPE',
    `FMoE: expert ${index} was given ${count} rows and returned ${Array.isArray(shape) ? `[${shape.join(', ')}]` : typeof output}; ` +
      'an expert maps [r, D] to [r, any width], also for r = 0.',
    { op: 'FMoE', argument: 'expert', ...(Array.isArray(shape) ? { shapes: [shape] } : {}) },
  );
}
