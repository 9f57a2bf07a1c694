import { SetupError } from './errors.mjs';
import { ask } from './exec.mjs';
import { findProgram } from './files.mjs';
import { installCommand } from './machine.mjs';

/** @typedef {import('./paths.mjs').Environment} Environment */

/**
 * The outcome of one check.
 *
 * @typedef {object} ToolCheck
 * @property {string} item the tool
 * @property {string} found what was found: version and place, or what is wrong
 * @property {boolean} ok
 * @property {string} remedy what to do where it is not ok, else empty
 * @property {string} [path] the program
 */

const OLDEST_NODE = /** @type {const} */ ([20, 19]);
const OLDEST_PYTHON = /** @type {const} */ ([3, 10]);
const OLDEST_GXX = /** @type {const} */ ([9, 3]);
const OLDEST_CLANG = /** @type {const} */ ([9, 0]);

/**
 * @param {string} version
 * @param {readonly [number, number]} oldest
 * @returns {boolean}
 */
function atLeast(version, oldest) {
  const [major = 0, minor = 0] = version.split('.').map(Number);
  return major > oldest[0] || (major === oldest[0] && minor >= oldest[1]);
}

/**
 * @param {string} [version] such as `20.20.2`
 * @returns {ToolCheck}
 */
export function checkNode(version = process.versions.node) {
  const ok = atLeast(version, OLDEST_NODE);
  const wanted = OLDEST_NODE.join('.');
  return {
    item: 'Node',
    found: ok ? version : `${version}, ${wanted} or newer is needed`,
    ok,
    remedy: ok ? '' : `install Node ${wanted} or newer (20, 22 and 24 are supported)`,
    path: process.execPath,
  };
}

/**
 * @param {Environment} [env]
 * @returns {ToolCheck}
 */
export function checkNpm(env = process.env) {
  const path = findProgram('npm', env);
  const version = path ? ask(path, ['--version'], { env: { ...env } }) : undefined;
  if (path && version) return { item: 'npm', found: version, ok: true, remedy: '', path };
  return {
    item: 'npm',
    found: path ? `${path} does not run` : 'not on PATH',
    ok: false,
    remedy: installCommand('npm'),
  };
}

/**
 * Python 3 with `venv` and `ensurepip`, which Debian and Ubuntu put into a package of their own.
 *
 * @param {Environment} [env]
 * @returns {ToolCheck}
 */
export function checkPython(env = process.env) {
  const item = 'Python';
  const path = findProgram('python3', env);
  if (!path) return { item, found: 'no python3 on PATH', ok: false, remedy: installCommand('python3') };
  const code = 'import sys; print("%d.%d.%d" % sys.version_info[:3])';
  const version = ask(path, ['-c', code], { env: { ...env } });
  if (!version) {
    return { item, found: `${path} does not run`, ok: false, remedy: installCommand('python3') };
  }
  if (!atLeast(version, OLDEST_PYTHON)) {
    const wanted = OLDEST_PYTHON.join('.');
    const found = `${version} (${path}), ${wanted} or newer is needed`;
    return { item, found, ok: false, remedy: `install Python ${wanted} or newer and put it first on PATH` };
  }
  if (ask(path, ['-c', 'import venv, ensurepip'], { env: { ...env } }) === undefined) {
    const found = `${version} (${path}), without venv and ensurepip`;
    return { item, found, ok: false, remedy: installCommand('python3-venv') };
  }
  return { item, found: `${version} (${path})`, ok: true, remedy: '', path };
}

/**
 * The C++ compiler: `CXX` when set, else `g++`.
 *
 * @param {Environment} [env]
 * @returns {ToolCheck}
 */
export function checkCompiler(env = process.env) {
  const item = 'C++ compiler';
  const name = env['CXX'] || 'g++';
  const path = name.includes('/') ? name : findProgram(name, env);
  const banner = path ? ask(path, ['--version'], { env: { ...env } })?.split('\n')[0] : undefined;
  if (!path || !banner) {
    const found = env['CXX'] ? `CXX=${name} does not run` : 'no g++ on PATH';
    return { item, found, ok: false, remedy: installCommand('g++') };
  }
  const version = ask(path, ['-dumpfullversion', '-dumpversion'], { env: { ...env } }) ?? '0';
  const oldest = /clang/i.test(banner) ? OLDEST_CLANG : OLDEST_GXX;
  if (!atLeast(version, oldest)) {
    const found = `${banner}, ${oldest.join('.')} or newer is needed`;
    return { item, found, ok: false, remedy: 'install a newer compiler and name it in CXX' };
  }
  return { item, found: banner, ok: true, remedy: '', path };
}

/**
 * @param {readonly ToolCheck[]} checks
 * @throws {SetupError} naming every tool that is missing and how to get it
 */
export function requireTools(checks) {
  const missing = checks.filter((check) => !check.ok);
  if (missing.length === 0) return;
  throw new SetupError(
    `Set-up needs tools that are missing:\n${missing.map((c) => `  - ${c.item}: ${c.found}`).join('\n')}`,
    missing.map((check) => check.remedy).join('\n          '),
  );
}
