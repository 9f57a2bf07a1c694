import type { MoeActivation } from '@fmoe/kernels';
import { FmoeError, nn } from '@fmoe/torch';
import { GEGLU, ReGLU, SwiGLU } from './gated-activation.js';

/** What an expert applies between its two layers: a module, or the name of one that the fused operator knows. */
export type ExpertActivation = nn.Module | MoeActivation;

const named: Readonly<Record<MoeActivation, () => nn.Module>> = {
  gelu: () => new nn.GELU(),
  geluTanh: () => new nn.GELU({ approximate: 'tanh' }),
  relu: () => new nn.ReLU(),
  silu: () => new nn.SiLU(),
  swiglu: () => new SwiGLU(),
  geglu: () => new GEGLU(),
  reglu: () => new ReGLU(),
};

/**
 * The module of an activation.
 *
 * @throws FmoeError `ERR_ARGUMENT` for an unknown name or something that is no module.
 */
export function makeActivation(owner: string, activation: ExpertActivation): nn.Module {
  if (activation instanceof nn.Module) return activation;
  if (Object.hasOwn(named, activation)) return named[activation]();
  throw new FmoeError(
    'ERR_ARGUMENT',
    `${owner}: activation must be a module or one of ${Object.keys(named).join(', ')}, got ${String(activation)}.`,
    { op: owner, argument: 'activation' },
  );
}

/**
 * The fused operator's name of what a module computes, or null where it has none. Of a sequence, what does nothing is left
 * out, such as a dropout in evaluation mode. A subclass with a `forward` of its own, or hooks, may compute something else.
 */
export function fusedActivation(activation: nn.Module): MoeActivation | null {
  if (activation.hasForwardHooks) return null;
  if (runs(activation, nn.ReLU)) return 'relu';
  if (runs(activation, nn.GELU)) return activation.approximate === 'tanh' ? 'geluTanh' : 'gelu';
  if (runs(activation, nn.SiLU)) return 'silu';
  if (runs(activation, SwiGLU)) return 'swiglu';
  if (runs(activation, GEGLU)) return 'geglu';
  if (runs(activation, ReGLU)) return 'reglu';
  if (!runs(activation, nn.Sequential)) return null;
  const [only, ...more] = [...activation].filter((module) => !isIdentity(module));
  return only !== undefined && more.length === 0 ? fusedActivation(only) : null;
}

function isIdentity(module: nn.Module): boolean {
  if (module.hasForwardHooks) return false;
  if (runs(module, nn.Dropout)) return !module.training || module.p === 0;
  return runs(module, nn.Identity);
}

/** Whether a module's `forward` is that of the class and not one that a subclass or a user put in its place. */
export function runs<Kind extends nn.Module>(
  module: nn.Module,
  kind: (abstract new (...args: never[]) => Kind) & { prototype: nn.Module },
): module is Kind {
  return module instanceof kind && module.forward === kind.prototype.forward;
}
