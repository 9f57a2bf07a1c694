import { join } from 'node:path';
import { readTextIfAny } from './files.mjs';

/** The version of PyTorch that set-up installs and that the project is tested with. */
export const TESTED_TORCH = '2.11.0';

/** Versions that are accepted: from this one on, within the same major version. */
export const OLDEST_TORCH = '2.9';

/**
 * @param {string} version such as `2.11.0+cu130`
 * @returns {[major: number, minor: number] | undefined}
 */
function parse(version) {
  const match = /^(\d+)\.(\d+)/.exec(version);
  return match ? [Number(match[1]), Number(match[2])] : undefined;
}

/**
 * @param {string} version such as `2.11.0+cu130`
 * @returns {'tested' | 'accepted' | 'refused'} `tested` is any 2.11, `accepted` any other from 2.9 on below 3
 */
export function judgeTorchVersion(version) {
  const found = parse(version);
  const tested = /** @type {[number, number]} */ (parse(TESTED_TORCH));
  const oldest = /** @type {[number, number]} */ (parse(OLDEST_TORCH));
  if (!found || found[0] !== oldest[0] || found[1] < oldest[1]) return 'refused';
  return found[1] === tested[1] ? 'tested' : 'accepted';
}

/**
 * Reads the version of an installation from its files; nothing is imported or loaded.
 *
 * A wheel has `version.py`, the archive from the PyTorch site `build-version`, a system package its headers only.
 *
 * @param {string} root the folder with `lib` and `include`
 * @param {string} [include] the folder of the headers, where it is not below `root`
 * @returns {string | undefined}
 */
export function readTorchVersion(root, include = join(root, 'include')) {
  const python = /^__version__\s*=\s*['"]([^'"]+)['"]/m.exec(readTextIfAny(join(root, 'version.py')) ?? '');
  if (python) return python[1];
  const archive = /^\d+\.\d+\S*/.exec(readTextIfAny(join(root, 'build-version')) ?? '');
  if (archive) return archive[0];
  const headers = ['torch/headeronly/version.h', 'torch/csrc/api/include/torch/version.h'];
  for (const header of headers) {
    const text = readTextIfAny(join(include, header)) ?? '';
    const numbers = ['MAJOR', 'MINOR', 'PATCH'].map(
      (part) => new RegExp(`#define\\s+TORCH_VERSION_${part}\\s+(\\d+)`).exec(text)?.[1],
    );
    if (numbers.every((number) => number !== undefined)) return numbers.join('.');
  }
  return undefined;
}
