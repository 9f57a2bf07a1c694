import { join } from 'node:path';
import { isFile, readJsonIfAny } from './files.mjs';
import { TESTED_TORCH } from './torch-version.mjs';

/** The file that set-up writes last: a folder without it is not finished. */
const MARKER = 'fmoe-environment.json';

/**
 * What the marker of a finished Python environment says.
 *
 * @typedef {object} EnvironmentRecord
 * @property {string} name
 * @property {string[]} requirements what pip was asked for
 * @property {string} sitePackages where its packages lie; in the file relative to the environment, so that it can move
 * @property {string} python version of the interpreter
 */

/**
 * @param {import('./machine.mjs').Variant} variant
 * @returns {string} the name of the environment with libtorch, below the folder of environments
 */
export function torchEnvironmentName(variant) {
  return `torch-${TESTED_TORCH}-${variant}`;
}

/** The environment with cmake and ninja, for machines without them. */
export const TOOLS_ENVIRONMENT = 'build-tools';

/**
 * @param {string} folder
 * @returns {string} where the marker of that environment lies
 */
export function markerPath(folder) {
  return join(folder, MARKER);
}

/**
 * @param {string} folder an environment below `FMOE_HOME`
 * @returns {EnvironmentRecord | undefined} its record, if set-up finished it and its Python is still there
 */
export function completeEnvironment(folder) {
  /** @type {EnvironmentRecord | undefined} */
  const record = readJsonIfAny(markerPath(folder));
  if (typeof record?.sitePackages !== 'string' || !Array.isArray(record.requirements)) return undefined;
  if (!isFile(join(folder, 'bin/python'))) return undefined;
  return { ...record, sitePackages: join(folder, record.sitePackages) };
}
