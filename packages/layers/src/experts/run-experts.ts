/** Shape letters: D model width, E local experts, R routed rows. */
import { cat, FmoeError, type nn, type Tensor, tensor } from '@fmoe/torch';
import { leavesOf, mapNest, type Nest, sameForm } from '../nest.js';

/**
 * Calls each expert with its own rows. An expert without rows is called as well, so that its parameters get zero
 * gradients rather than none. Reads the offsets on the host.
 *
 * An expert whose `forward` names two parameters also gets the number of its rows, `[1]` int64 on the CPU, as FastMoE's do.
 *
 * @param owner the layer's name, for messages
 * @param experts E modules that map `[r, D]` to `[r, D']`, for any r from 0, or nests of such tensors
 * @param rows `[R, D]`, or a nest of such tensors, grouped by expert
 * @param offsets `[E+1]` int64
 * @returns `[R', D']` without the padding rows after the last expert's
 * @throws FmoeError `ERR_SHAPE` when an expert returns something else, or its outputs are not like those of the first.
 */
export function runExperts(owner: string, experts: Iterable<nn.Module>, rows: Nest, offsets: Tensor): Nest {
  const bounds = Array.from(offsets.cpu().data() as BigInt64Array, Number);
  const outputs: Nest[] = [];
  for (const [index, expert] of [...experts].entries()) {
    const start = bounds[index] as number;
    const count = (bounds[index + 1] as number) - start;
    const own = mapNest(rows, (leaf) => leaf.narrow(0, start, count));
    const output: unknown =
      expert.forward.length < 2 ? expert.call(own) : expert.call(own, tensor([count], { dtype: 'int64' }));
    const first = outputs[0] ?? (output as Nest);
    checkOutput({ owner, index, count, name: expert.constructor.name }, output, first);
    outputs.push(output);
  }
  const [first, ...others] = outputs as [Nest, ...Nest[]];
  return mapNest(first, (...parts) => cat(parts, 0), ...others);
}

interface Called {
  owner: string;
  index: number;
  count: number;
  name: string;
}

function checkOutput(called: Called, output: unknown, first: Nest): asserts output is Nest {
  const { owner, index, count, name } = called;
  const fail = (what: string): never => {
    throw new FmoeError('ERR_SHAPE', `${owner}: expert ${index} (${name}) ${what}`, {
      op: owner,
      argument: 'expert',
    });
  };
  if (typeof output !== 'object' || output === null) fail(`returned ${typeof output}, expected a tensor.`);
  const leaves = leavesOf(output as Nest);
  for (const { shape } of leaves) {
    if (shape.length === 2 && shape[0] === count) continue;
    fail(
      `was given ${count} rows and returned [${shape.join(', ')}]; an expert maps [r, D] to [r, any width], also for r = 0.`,
    );
  }
  if (!sameForm(output as Nest, first)) fail('returned tensors in another arrangement than expert 0.');
  leavesOf(first).forEach((wanted, leaf) => {
    const width = (leaves[leaf] as Tensor).shape[1];
    if (width === wanted.shape[1]) return;
    fail(`returned rows of width ${width}, expert 0 returned ${wanted.shape[1]}: all must have one width.`);
  });
}
