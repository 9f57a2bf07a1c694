import { FmoeError, nn } from '@fmoe/torch';
import { isClass } from '../is-class.js';

/** An expert's class, made with the width D of a token, or a function that makes an expert module. */
export type ExpertSource =
  | (new (
      dModel: number,
    ) => nn.Module)
  | ((dModel: number, index: number) => nn.Module);

/** The experts of a layer: one source for all of them, or a list with a source or a made module for each. */
export type ExpertSources = ExpertSource | readonly (ExpertSource | nn.Module)[];

/**
 * The expert modules of a layer: one of each entry of a list, or `numExpert` of a single source. Of experts that live on several
 * ranks all are made, one after the other, and those of other ranks dropped: so each starts as it does on one process.
 *
 * @param ids the experts to keep, in this order
 * @throws FmoeError `ERR_ARGUMENT` when a source makes no module, or one module is given twice.
 */
export function makeExperts(
  owner: string,
  source: ExpertSources,
  numExpert: number,
  dModel: number,
  ids: readonly number[],
): nn.ModuleList {
  const sources = isList(source) ? source : Array.from({ length: numExpert }, () => source);
  const experts = sources.map((make, index) => {
    const expert = makeExpert(owner, make, dModel, index);
    if (make !== expert && !ids.includes(index)) expert.dispose();
    return expert;
  });
  if (new Set(experts).size === experts.length) return new nn.ModuleList(ids.map((id) => experts[id]!));
  throw new FmoeError(
    'ERR_ARGUMENT',
    `${owner}: two experts are the same module. Give a class or a function, or a module of its own for each expert.`,
    { op: owner, argument: 'expert' },
  );
}

/** A module from a source. */
export function makeExpert(
  owner: string,
  source: ExpertSource | nn.Module,
  dModel: number,
  index: number,
  argument = 'expert',
): nn.Module {
  const made: unknown =
    source instanceof nn.Module
      ? source
      : isClass(source)
        ? new source(dModel)
        : typeof source === 'function'
          ? source(dModel, index)
          : undefined;
  if (made instanceof nn.Module) return made;
  throw new FmoeError(
    'ERR_ARGUMENT',
    `${owner}: ${argument} ${index} is no nn.Module, nor a class or a function that makes one.`,
    { op: owner, argument },
  );
}

/** How many experts a list of them names, or undefined for a single source. */
export function countOf(source: ExpertSources | undefined): number | undefined {
  return isList(source) ? source.length : undefined;
}

function isList(source: unknown): source is readonly (ExpertSource | nn.Module)[] {
  return Array.isArray(source);
}
