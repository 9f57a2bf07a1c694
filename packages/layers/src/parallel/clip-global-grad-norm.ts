import type { ProcessGroup } from '@fmoe/comm';
import { FmoeError, noGrad, op, stack, type Tensor, tidy, zeros } from '@fmoe/torch';

/** Options of {@link clipGlobalGradNorm_}. */
export interface GlobalNormOptions {
  /** Order of the norm; Infinity for the largest magnitude. Default 2. */
  normType?: number;
}

/** Parameters that are spread over the ranks of a group, each rank with its own; or, with null, that every rank has. */
export interface ShardedParameters {
  parameters: Iterable<Tensor>;
  group: ProcessGroup | null;
}

/**
 * Scales gradients down, in place, so that their norm as one vector over all ranks is at most `maxNorm`: as
 * `optim.clipGradNorm_` on one process that has all parameters.
 *
 * Every rank of each group must call it, also without parameters there. Gradients must be combined already, so that copies agree.
 *
 * @returns the norm before clipping, without dimensions
 * @throws FmoeError ERR_ARGUMENT for a negative `maxNorm` or an order that is not above 0
 */
export function clipGlobalGradNorm_(
  sharded: readonly ShardedParameters[],
  maxNorm: number,
  { normType = 2 }: GlobalNormOptions = {},
): Tensor {
  for (const [argument, value, fits] of [
    ['maxNorm', maxNorm, maxNorm >= 0],
    ['normType', normType, normType > 0],
  ] as const) {
    if (fits) continue;
    throw new FmoeError('ERR_ARGUMENT', `clipGlobalGradNorm_: ${argument} is ${value}.`, {
      op: 'clipGlobalGradNorm_',
      argument,
    });
  }
  return tidy(() =>
    noGrad(() => {
      const lists = sharded.map(({ parameters, group }) => ({ all: [...parameters], group }));
      const gradients = lists.map(({ all }) => all.flatMap((parameter) => parameter.grad ?? []));
      const like = lists.flatMap(({ all }) => all)[0];
      const device = like?.device ?? 'cpu';
      const powers = gradients.map((list, i) => {
        const own = powerOfNorm(list, normType, device);
        const { group } = lists[i]!;
        if (group === null || group.size === 1) return own;
        return group.allReduce_(own, normType === Number.POSITIVE_INFINITY ? 'max' : 'sum');
      });
      const together = stack(powers);
      const norm = normType === Number.POSITIVE_INFINITY ? together.max() : together.sum().pow(1 / normType);
      const factor = norm.add(1e-6).reciprocal().mul(maxNorm).clamp(null, 1);
      for (const gradient of gradients.flat())
        gradient.mul_(factor.to({ dtype: gradient.dtype, device: gradient.device }));
      return like === undefined || like.dtype === 'float64' ? norm : norm.float();
    }),
  );
}

/** The sum of the p-th powers of the magnitudes; for Infinity the largest one. Float64, as ranks may differ in dtype. */
function powerOfNorm(gradients: readonly Tensor[], normType: number, device: string): Tensor {
  if (gradients.length === 0) return zeros([], { dtype: 'float64', device });
  const norms = op('aten::_foreach_norm.Scalar')(gradients, normType) as Tensor[];
  const all = stack(norms.map((norm) => norm.to({ dtype: 'float64', device })));
  return normType === Number.POSITIVE_INFINITY ? all.max() : all.pow(normType).sum();
}
