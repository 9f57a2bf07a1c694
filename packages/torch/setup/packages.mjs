import { readdirSync, realpathSync } from 'node:fs';
import { basename, dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { isFile, readJsonIfAny } from './files.mjs';

/** The packages in the order of their layers, lowest first: a library may link those below. */
const LAYER_ORDER = ['torch', 'kernels', 'comm', 'layers', 'models', 'cli'];

/**
 * An installed package with a native part.
 *
 * @typedef {object} NativePackage
 * @property {string} name such as `@fmoe/kernels`
 * @property {string} dir its real folder
 */

/**
 * @param {string} folder
 * @returns {string[]} its sub-folders, or none where it cannot be read
 */
function children(folder) {
  try {
    return readdirSync(folder).map((name) => join(folder, name));
  } catch {
    return [];
  }
}

/**
 * @param {string} name
 * @returns {number}
 */
function layerOf(name) {
  const layer = LAYER_ORDER.indexOf(name.replace('@fmoe/', ''));
  return layer < 0 ? LAYER_ORDER.length : layer;
}

/**
 * Finds the `@fmoe` packages with a `native` folder that the project in `start` uses.
 *
 * Looked at are `node_modules/@fmoe` in `start` and every folder above it, and what lies beside a package found
 * (where pnpm and workspaces keep the others), beginning with this package itself.
 *
 * @param {string} [start]
 * @param {string} [self] the folder of `@fmoe/torch`
 * @returns {NativePackage[]} lowest layer first
 */
export function findNativePackages(
  start = process.cwd(),
  self = fileURLToPath(new URL('..', import.meta.url)),
) {
  /** @type {string[]} */
  const candidates = [resolve(self)];
  for (let folder = resolve(start); ; folder = dirname(folder)) {
    candidates.push(...children(join(folder, 'node_modules/@fmoe')));
    if (folder === dirname(folder)) break;
  }
  /** @type {Map<string, NativePackage>} */
  const found = new Map();
  const seen = new Set();
  for (let candidate = candidates.shift(); candidate !== undefined; candidate = candidates.shift()) {
    if (!isFile(join(candidate, 'package.json'))) continue;
    const dir = realpathSync(candidate);
    if (seen.has(dir)) continue;
    seen.add(dir);
    const name = readJsonIfAny(join(dir, 'package.json'))?.name;
    if (typeof name !== 'string' || !name.startsWith('@fmoe/')) continue;
    const parent = dirname(dir);
    if (basename(parent) === '@fmoe' || basename(parent) === 'packages') candidates.push(...children(parent));
    if (isFile(join(dir, 'native/CMakeLists.txt'))) found.set(dir, { name, dir });
  }
  return [...found.values()].sort((a, b) => layerOf(a.name) - layerOf(b.name) || a.dir.localeCompare(b.dir));
}
