import { FmoeError, Tensor } from '@fmoe/torch';

/** A tensor, or lists and objects of them to any depth. */
export type Nest = Tensor | readonly Nest[] | { readonly [name: string]: Nest };

/** The tensors of a nest, in order. */
export function leavesOf(nest: Nest): Tensor[] {
  if (nest instanceof Tensor) return [nest];
  checkInner(nest);
  return Object.values(nest).flatMap(leavesOf);
}

function checkInner(nest: Nest): void {
  if (typeof nest === 'object' && nest !== null) return;
  throw new FmoeError('ERR_ARGUMENT', `expected tensors, lists or objects of them, got ${String(nest)}.`);
}

/** A nest of the same form, each tensor replaced by what `change` makes of it and of those at its place in the others. */
export function mapNest(
  nest: Nest,
  change: (leaf: Tensor, ...others: Tensor[]) => Tensor,
  ...others: Nest[]
): Nest {
  if (nest instanceof Tensor) return change(nest, ...(others as Tensor[]));
  checkInner(nest);
  const inner = (name: string | number) =>
    others.map((other) => (other as Record<string | number, Nest>)[name] as Nest);
  if (isList(nest)) return nest.map((item, index) => mapNest(item, change, ...inner(index)));
  return Object.fromEntries(
    Object.entries(nest).map(([name, item]) => [name, mapNest(item, change, ...inner(name))]),
  );
}

/** Whether two nests have tensors at the same places. */
export function sameForm(a: Nest, b: Nest): boolean {
  if (a instanceof Tensor || b instanceof Tensor) return a instanceof Tensor && b instanceof Tensor;
  if (isList(a) !== isList(b)) return false;
  const [names, others] = [Object.keys(a), Object.keys(b)];
  const at = (nest: Nest, name: string) => (nest as Record<string, Nest>)[name] as Nest;
  return (
    names.length === others.length && names.every((name) => name in b && sameForm(at(a, name), at(b, name)))
  );
}

/**
 * What else a layer computes for the tokens, added to what its experts gave.
 *
 * @param what gave `addend`
 * @throws FmoeError `ERR_SHAPE` when the two are not of one form and their tensors of one shape
 */
export function addToOutput(owner: string, output: Nest, what: string, addend: Nest): Nest {
  const shapes = [output, addend].map((nest) => leavesOf(nest).map(({ shape }) => shape));
  if (!sameForm(output, addend) || JSON.stringify(shapes[0]) !== JSON.stringify(shapes[1])) {
    const [experts, other] = shapes.map((list) => list.map((shape) => `[${shape.join(', ')}]`).join(', '));
    throw new FmoeError(
      'ERR_SHAPE',
      `${owner}: the experts give ${experts} and ${what} ${other}; both must give tensors of the same shapes, in the same nest.`,
      { op: owner, shapes: shapes.flat() },
    );
  }
  return mapNest(output, (a, b) => a.add(b), addend);
}

function isList(nest: Nest): nest is readonly Nest[] {
  return Array.isArray(nest);
}
