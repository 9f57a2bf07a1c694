import { FmoeError, nn } from '@fmoe/torch';

/** An expert's class, made with the width D of a token, or a function that makes an expert module. */
export type ExpertSource =
  | (new (
      dModel: number,
    ) => nn.Module)
  | ((dModel: number, index: number) => nn.Module);

/**
 * The expert modules of a layer: one of each entry of a list, or `numExpert` of a single source.
 *
 * @throws FmoeError `ERR_ARGUMENT` when a source makes no module.
 */
export function makeExperts(
  source: ExpertSource | readonly ExpertSource[],
  numExpert: number,
  dModel: number,
): nn.ModuleList {
  const sources = isList(source) ? source : Array.from({ length: numExpert }, () => source);
  return new nn.ModuleList(
    sources.map((make, index) => {
      const expert: unknown = isClass(make) ? new make(dModel) : make(dModel, index);
      if (expert instanceof nn.Module) return expert;
      throw new FmoeError('ERR_ARGUMENT', `FMoE: expert ${index} is no nn.Module.`, {
        op: 'FMoE',
        argument: 'expert',
      });
    }),
  );
}

/** Whether a list of different experts was given, which then says how many there are. */
export function isList(source: unknown): source is readonly ExpertSource[] {
  return Array.isArray(source);
}

function isClass(source: ExpertSource): source is new (dModel: number) => nn.Module {
  return source.prototype instanceof nn.Module;
}
