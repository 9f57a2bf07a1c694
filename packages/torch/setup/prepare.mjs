import { join } from 'node:path';
import { completeEnvironment } from './environments.mjs';
import { findLibtorch } from './libtorch.mjs';
import { wantedVariant } from './machine.mjs';
import { buildNative, isBuilt } from './native-build.mjs';
import { findNativePackages } from './packages.mjs';
import { environmentsFolder } from './paths.mjs';
import { ensureBuildTools, ensureEnvironment, torchRecipes } from './python-env.mjs';
import { checkCompiler, checkNode, checkPython, requireTools } from './toolchain.mjs';

/** @typedef {import('./paths.mjs').Environment} Environment */
/** @typedef {import('./log.mjs').Log} Log */
/** @typedef {import('./libtorch.mjs').Libtorch} Libtorch */

/**
 * @param {Environment} env
 * @returns {boolean} whether the user names a libtorch, so that none is to be installed
 */
function usesOwnLibtorch(env) {
  const named = env['LIBTORCH'] || env['LIBTORCH_INCLUDE'] || env['LIBTORCH_LIB'];
  return Boolean(named) || env['LIBTORCH_USE_PYTORCH'] === '1';
}

/**
 * @param {Environment} env
 * @returns {boolean} whether the private environment for this machine is finished
 */
function hasEnvironment(env) {
  const folder = join(environmentsFolder(env), torchRecipes[wantedVariant(env)].name);
  return completeEnvironment(folder) !== undefined;
}

/**
 * Makes sure that there is a libtorch: the one that the user names, else the private environment.
 *
 * @param {{ env?: Environment, log: Log }} options
 * @returns {Promise<Libtorch>}
 */
export async function ensureLibtorch({ env = process.env, log }) {
  if (!usesOwnLibtorch(env)) await ensureEnvironment(torchRecipes[wantedVariant(env)], { env, log });
  return findLibtorch(env);
}

/**
 * Everything native, from nothing: checks the tools, gets libtorch, builds the packages, lowest layer first.
 * What is there already is left alone.
 *
 * @param {object} options
 * @param {Log} options.log
 * @param {Environment} [options.env]
 * @param {readonly import('./packages.mjs').NativePackage[]} [options.packages] those of the current project when absent
 * @param {boolean} [options.force] build even if nothing has changed
 * @returns {Promise<{ libtorch: Libtorch, built: string[] }>} `built` names the packages that had to be built
 */
export async function prepareNative({
  log,
  env = process.env,
  packages = findNativePackages(),
  force = false,
}) {
  // All that is missing is named at once, before the first download.
  requireTools([
    checkNode(),
    ...(usesOwnLibtorch(env) || hasEnvironment(env) ? [] : [checkPython(env), checkCompiler(env)]),
  ]);
  const libtorch = await ensureLibtorch({ env, log });
  const outdated = packages.filter(({ dir }) => force || !isBuilt(dir, libtorch, env));
  if (outdated.length === 0) return { libtorch, built: [] };
  requireTools([checkCompiler(env)]);
  if (!libtorch.tested) log.note(`libtorch ${libtorch.version} is accepted, but not the version tested`);
  /** @type {string[]} */
  const built = [];
  const tools = () => ensureBuildTools({ env, log });
  for (const { name, dir } of outdated) {
    if ((await buildNative(dir, { libtorch, tools, log, env, force })) === 'built') built.push(name);
  }
  return { libtorch, built };
}
