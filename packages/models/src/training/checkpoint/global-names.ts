/** Shape letters: N all experts, E experts of one rank. */
import type { ExpertTensor } from '@fmoe/layers';
import type { Tensor } from '@fmoe/torch';

/*
 * Names under which ranks write their tensors, the same for every layout. A tensor has the name that it has on one process; of a
 * tensor with all experts [N, …] each expert is written by itself, as `name#expert`.
 */

/** What belongs to experts, by the names on this rank. */
export type ExpertLayout = ReadonlyMap<string, ExpertTensor>;

/** The name of one expert's part. */
export function nameOfExpert(name: string, expert: number): string {
  return `${name}#${expert}`;
}

/** Splits a name into that on one process and the expert, if it is the part of one. */
export function splitName(name: string): { base: string; expert?: number } {
  const at = name.lastIndexOf('#');
  return at < 0 ? { base: name } : { base: name.slice(0, at), expert: Number(name.slice(at + 1)) };
}

/** The name of an optimizer's tensor for a parameter. */
export function stateName(state: string, parameter: string): string {
  return `${state}::${parameter}`;
}

/** Whether all experts have one number in common, of which any will do: an optimizer counts steps by parameter. */
function isShared(name: string): boolean {
  return name.startsWith('step::');
}

/**
 * The tensors of one rank under global names.
 *
 * @param withDense also what all ranks have; one of them writes it
 * @param nameOf makes the name from that of the parameter
 */
export function toGlobal(
  tensors: Iterable<readonly [parameter: string, tensor: Tensor]>,
  layout: ExpertLayout,
  withDense: boolean,
  nameOf: (parameter: string) => string = (parameter) => parameter,
): Record<string, Tensor> {
  const out: Record<string, Tensor> = {};
  for (const [parameter, tensor] of tensors) {
    const place = layout.get(parameter);
    const name = nameOf(place?.name ?? parameter);
    if (place?.experts !== undefined) {
      for (const [slot, expert] of place.experts.ids.entries()) {
        out[nameOfExpert(name, expert)] = isShared(name) ? tensor : tensor.select(0, slot);
      }
    } else if (place !== undefined || withDense) {
      out[name] = tensor;
    }
  }
  return out;
}

/** The tensors with all experts of a layer, and how many those are. */
export function stackedExperts(layout: ExpertLayout): Record<string, number> {
  const stacked = [...layout.values()].flatMap(({ name, experts }) =>
    experts === undefined ? [] : [[name, experts.total] as const],
  );
  return Object.fromEntries(stacked);
}

/** Joins the parts of several experts. */
export function joinExperts(
  name: string,
  parts: readonly Tensor[],
  stack: (parts: readonly Tensor[]) => Tensor,
): Tensor {
  return isShared(name) ? parts[0]! : stack(parts);
}
