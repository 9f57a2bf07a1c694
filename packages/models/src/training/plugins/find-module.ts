import { existsSync, readFileSync } from 'node:fs';
import { dirname, isAbsolute, join } from 'node:path';
import { pathToFileURL } from 'node:url';

/** Conditions of a package's `exports` that hold for an import in Node. */
const conditions = new Set(['node', 'import', 'module-sync', 'default']);

/**
 * Where a module is that is named by a package's name or an absolute path: as an import in a file of the folder would find it.
 * Node resolves imports from the importing file alone, and that is not the user's.
 *
 * @returns its URL, or undefined when no folder `node_modules` from here upwards has the package
 */
export function findModule(name: string, folder: string): string | undefined {
  if (isAbsolute(name)) return pathToFileURL(name).href;
  const [, owner, rest] = /^((?:@[^/]+\/)?[^/]+)(\/.*)?$/.exec(name) ?? [];
  if (owner === undefined) return undefined;
  for (let at = folder; ; at = dirname(at)) {
    const root = join(at, 'node_modules', owner);
    const manifest = join(root, 'package.json');
    if (existsSync(manifest)) {
      const entry = entryOf(JSON.parse(readFileSync(manifest, 'utf8')), `.${rest ?? ''}`);
      return entry === undefined ? undefined : pathToFileURL(join(root, entry)).href;
    }
    if (dirname(at) === at) return undefined;
  }
}

function entryOf(manifest: { exports?: unknown; main?: string }, path: string): string | undefined {
  const { exports, main } = manifest;
  if (exports === undefined) return path === '.' ? (main ?? 'index.js') : path;
  const isMap =
    typeof exports === 'object' &&
    exports !== null &&
    Object.keys(exports).some((key) => key.startsWith('.'));
  if (!isMap) return path === '.' ? target(exports) : undefined;
  return target((exports as Record<string, unknown>)[path]);
}

/** The first file among nested conditions that hold. */
function target(value: unknown): string | undefined {
  if (typeof value === 'string') return value;
  if (typeof value !== 'object' || value === null) return undefined;
  for (const [condition, inner] of Object.entries(value)) {
    const found = conditions.has(condition) ? target(inner) : undefined;
    if (found !== undefined) return found;
  }
  return undefined;
}
