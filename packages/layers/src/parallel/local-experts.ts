/** Shape letters: N all experts, E experts of this rank. */
import { Placement, type ProcessGroup } from '@fmoe/comm';
import { empty, FmoeError, type nn, noGrad, tensor, tidy } from '@fmoe/torch';

/** Which of all experts this process has. */
export interface LocalExperts {
  /** N. */
  total: number;
  /** `[E]` the global number of each, in the order of the slots. */
  ids: readonly number[];
}

/** A parameter whose first dimension is the experts of this rank; `experts` says which they are. */
export interface ExpertParameter extends nn.Parameter {
  experts?: LocalExperts;
}

/**
 * Where the experts of a layer live: as asked for, or as evenly as it goes. Null without other ranks.
 *
 * @throws FmoeError ERR_ARGUMENT when the placement is for other experts or another number of ranks
 */
export function placeExperts(
  owner: string,
  numExpert: number,
  group: ProcessGroup | null,
  wanted?: Placement | null,
): Placement | null {
  const ranks = group?.size ?? 1;
  if (wanted && (wanted.numExperts !== numExpert || wanted.worldSize !== ranks)) {
    throw new FmoeError(
      'ERR_ARGUMENT',
      `${owner}: the placement is for ${wanted.numExperts} experts on ${wanted.worldSize} ranks, but there are ` +
        `${numExpert} experts and ${group === null ? 'no moeGroup' : `moeGroup has ${ranks} ranks`}.`,
      { op: owner, argument: 'placement' },
    );
  }
  return ranks === 1 ? null : (wanted ?? Placement.even(numExpert, ranks));
}

/**
 * Gives a parameter `[E, …]` the values that its experts have on one process with all N: the generator moves on as it does there,
 * so that what is drawn afterwards is the same as well.
 *
 * @param draw fills a parameter that it is given
 */
export function drawExperts(parameter: nn.Parameter, draw: (parameter: nn.Parameter) => void): void {
  const { experts } = parameter as ExpertParameter;
  if (experts === undefined || hasAll(experts)) {
    draw(parameter);
    return;
  }
  const { total, ids } = experts;
  tidy(() =>
    noGrad(() => {
      const { dtype, device } = parameter;
      const all = empty([total, ...parameter.shape.slice(1)], { dtype, device });
      draw(all as nn.Parameter);
      parameter.copy_(all.indexSelect(0, tensor([...ids], { dtype: 'int64', device })));
    }),
  );
}

function hasAll({ total, ids }: LocalExperts): boolean {
  return ids.length === total && ids.every((id, slot) => id === slot);
}
