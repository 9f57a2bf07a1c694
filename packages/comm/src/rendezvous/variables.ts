import { FmoeError } from '@fmoe/torch';

/** The variables of a process, as `process.env`. */
export type Environment = Readonly<Record<string, string | undefined>>;

/** A value together with the variable that it was read from, so that errors can name it. */
export interface Setting {
  name: string;
  value: number;
}

/** `ERR_CONFIG`: the environment, not the code, is what the user has to change. */
export function environmentError(message: string): FmoeError {
  return new FmoeError('ERR_CONFIG', message, { op: 'readRendezvous' });
}

/** A variable's text; one that is set but empty counts as not set. */
export function text(env: Environment, name: string): string | undefined {
  const value = env[name]?.trim();
  return value === '' ? undefined : value;
}

/** The first of some variables that is set, as an integer of at least `least`. */
export function integer(env: Environment, names: readonly string[], least = 0): Setting | undefined {
  for (const name of names) {
    const raw = text(env, name);
    if (raw === undefined) continue;
    const value = Number(raw);
    if (/^\d+$/.test(raw) && Number.isSafeInteger(value) && value >= least) return { name, value };
    throw environmentError(`${name} is '${raw}', expected an integer of at least ${least}.`);
  }
  return undefined;
}
