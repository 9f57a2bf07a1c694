import { FmoeError, type nn } from '@fmoe/torch';
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
 * @throws FmoeError `ERR_ARGUMENT` when the source makes no gate or one for other sizes than the layer's.
 */
export function makeGate(source: GateSource, options: GateOptions & { topK: number }): BaseGate {
  const gate = source instanceof BaseGate ? source : isClass(source) ? new source(options) : source(options);
  if (!(gate instanceof BaseGate)) {
    throw new FmoeError(
      'ERR_ARGUMENT',
      'FMoE: gate must be a BaseGate, a subclass of it, or a function that returns one.',
      {
        op: 'FMoE',
        argument: 'gate',
      },
    );
  }
  for (const option of ['dModel', 'numExpert', 'topK'] as const) {
    if (gate[option] === options[option]) continue;
    throw new FmoeError(
      'ERR_ARGUMENT',
      `FMoE: the gate was made with ${option} ${gate[option]}, but the layer has ${options[option]}.`,
      { op: 'FMoE', argument: 'gate' },
    );
  }
  return gate;
}

type AnyClass<Made> = new (...args: never[]) => Made;

/** A class cannot be called and a function need not be constructible; only a module's class inherits from Module. */
function isClass(source: unknown): source is AnyClass<nn.Module> & (new (options: GateOptions) => BaseGate) {
  return typeof source === 'function' && source.prototype instanceof BaseGate;
}
