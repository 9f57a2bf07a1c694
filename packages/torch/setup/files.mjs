import { createHash, randomBytes } from 'node:crypto';
import {
  accessSync,
  constants,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { delimiter, dirname, join } from 'node:path';

/**
 * @param {string} path
 * @returns {boolean} whether `path` is a folder (links followed)
 */
export function isFolder(path) {
  return statSync(path, { throwIfNoEntry: false })?.isDirectory() ?? false;
}

/**
 * @param {string} path
 * @returns {boolean} whether `path` is a plain file (links followed)
 */
export function isFile(path) {
  return statSync(path, { throwIfNoEntry: false })?.isFile() ?? false;
}

/**
 * @param {string} path
 * @returns {string | undefined} the text of a file, or nothing where it cannot be read
 */
export function readTextIfAny(path) {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return undefined;
  }
}

/**
 * @param {string} path
 * @returns {any} the parsed JSON of a file, or nothing where it cannot be read or is not whole
 */
export function readJsonIfAny(path) {
  const text = readTextIfAny(path);
  if (text === undefined) return undefined;
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/**
 * Writes a JSON file so that a reader sees the old one or the new one, never half of one.
 *
 * @param {string} path
 * @param {unknown} value
 */
export function writeJsonAtomically(path, value) {
  mkdirSync(dirname(path), { recursive: true });
  const temporary = `${path}.${randomBytes(6).toString('hex')}.tmp`;
  writeFileSync(temporary, `${JSON.stringify(value, null, 2)}\n`);
  renameSync(temporary, path);
}

/**
 * @param {string} root a folder
 * @param {(name: string) => boolean} skip tells the names (of files and folders) to leave out
 * @returns {string[]} paths of the plain files below `root`, relative to it, sorted
 */
export function listFiles(root, skip = () => false) {
  /** @type {string[]} */
  const found = [];
  /** @param {string} relative */
  const walk = (relative) => {
    for (const entry of readdirSync(join(root, relative), { withFileTypes: true })) {
      if (skip(entry.name)) continue;
      const path = relative === '' ? entry.name : `${relative}/${entry.name}`;
      if (entry.isDirectory()) walk(path);
      else if (entry.isFile()) found.push(path);
    }
  };
  walk('');
  return found.sort();
}

/**
 * @param {string} root a folder
 * @param {readonly string[]} files paths relative to `root`, in a fixed order
 * @param {string} [salt] other things that the digest must depend on
 * @returns {string} SHA-256 over names and contents, hexadecimal
 */
export function hashFiles(root, files, salt = '') {
  const hash = createHash('sha256').update(salt);
  for (const file of files) {
    const content = readFileSync(join(root, file));
    // Name and length are part of the stream, so that moving bytes between files changes the digest.
    hash.update(`\0${file}\0${content.length}\0`).update(content);
  }
  return hash.digest('hex');
}

/**
 * @param {string} name the name of a program
 * @param {Readonly<Record<string, string | undefined>>} [env]
 * @returns {string | undefined} where `PATH` has it
 */
export function findProgram(name, env = process.env) {
  for (const folder of (env['PATH'] ?? '').split(delimiter)) {
    if (folder === '') continue;
    const candidate = join(folder, name);
    try {
      accessSync(candidate, constants.X_OK);
      if (isFile(candidate)) return candidate;
    } catch {
      // Not here.
    }
  }
  return undefined;
}
