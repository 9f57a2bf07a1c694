import { FmoeError } from '@fmoe/torch';
import { isClass } from '../is-class.js';
import { BaseGate, type GateOptions } from './base-gate.js';

/** A gate's class, a function that makes a gate, or a gate. */
export type GateSource =
  | (new (
      options: GateOptions,
    ) => BaseGate)
  | ((options: GateOptions) => BaseGate)
  | BaseGate;

/**
 * The gate of a layer.
 *
 * @param owner who asks for it, for errors
 * @throws FmoeError `ERR_ARGUMENT` when the source makes no gate or one for other sizes than the layer's.
 */
export function makeGate(
  owner: string,
  source: GateSource,
  options: GateOptions & { topK: number },
): BaseGate {
  const gate = source instanceof BaseGate ? source : construct(source, options);
  if (!(gate instanceof BaseGate)) {
    throw new FmoeError(
      'ERR_ARGUMENT',
      `${owner}: gate must be a BaseGate, a subclass of it, or a function that returns one.`,
      { op: owner, argument: 'gate' },
    );
  }
  for (const option of ['dModel', 'numExpert', 'topK'] as const) {
    if (gate[option] === options[option]) continue;
    throw new FmoeError(
      'ERR_ARGUMENT',
      `${owner}: the gate was made with ${option} ${gate[option]}, but the layer has ${options[option]}.`,
      { op: owner, argument: 'gate' },
    );
  }
  return gate;
}

/** What a class or a function makes; undefined for a class of something else than gates, or what is neither. */
function construct(source: Exclude<GateSource, BaseGate>, options: GateOptions): unknown {
  if (isClass(source)) return source.prototype instanceof BaseGate ? new source(options) : undefined;
  return typeof source === 'function' ? source(options) : undefined;
}
