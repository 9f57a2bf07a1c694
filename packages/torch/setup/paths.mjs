import { homedir } from 'node:os';
import { join, resolve } from 'node:path';

/** @typedef {Readonly<Record<string, string | undefined>>} Environment */

/**
 * The folder that keeps everything big: Python environments, tools and stores.
 *
 * `FMOE_HOME` when set, else `fmoe` in the user's cache folder (`XDG_CACHE_HOME`, else `~/.cache`).
 *
 * @param {Environment} [env]
 * @returns {string} an absolute path; the folder need not exist
 */
export function fmoeHome(env = process.env) {
  if (env['FMOE_HOME']) return resolve(env['FMOE_HOME']);
  // The XDG rule: a relative value is to be ignored.
  const cache = env['XDG_CACHE_HOME'];
  return join(cache?.startsWith('/') ? cache : join(homedir(), '.cache'), 'fmoe');
}

/**
 * @param {Environment} [env]
 * @returns {string} the folder of the Python environments that set-up makes
 */
export function environmentsFolder(env = process.env) {
  return join(fmoeHome(env), 'envs');
}

/**
 * @param {Environment} [env]
 * @returns {string} the folder of the locks that keep two set-ups apart
 */
export function locksFolder(env = process.env) {
  return join(fmoeHome(env), 'locks');
}
