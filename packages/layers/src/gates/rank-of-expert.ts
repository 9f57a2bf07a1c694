/** Shape letters: N all experts. */
import { Placement } from '@fmoe/comm';
import { FmoeError } from '@fmoe/torch';
import type { BaseGate, GateOptions } from './base-gate.js';

/**
 * `[N]` the rank of each expert in the gate's group, or null for one that is on every rank: see {@link GateOptions.placement}.
 *
 * @throws FmoeError `ERR_ARGUMENT` for a placement of more experts or other ranks than the gate's
 */
export function rankOfExpert(
  { constructor: { name: owner }, group, numExpert }: BaseGate,
  placement: GateOptions['placement'],
): (number | null)[] {
  const ranks = group?.size ?? 1;
  const { numExperts, worldSize, rankOfExpert } = placement ?? Placement.even(numExpert, ranks);
  if (worldSize !== ranks || numExperts > numExpert) {
    throw new FmoeError(
      'ERR_ARGUMENT',
      `${owner}: the placement is for ${numExperts} experts on ${worldSize} ranks, but the gate has ${numExpert} experts and a ` +
        `group of ${ranks}.`,
      { op: owner, argument: 'placement' },
    );
  }
  return Array.from({ length: numExpert }, (_, expert) => rankOfExpert[expert] ?? null);
}
