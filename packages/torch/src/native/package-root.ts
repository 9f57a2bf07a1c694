import { existsSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

/**
 * The folder of the package that a module belongs to: sources and the built files lie at different depths.
 *
 * @param moduleUrl `import.meta.url` of the caller
 * @param name the package's name
 */
export function packageRoot(moduleUrl: string, name: string): string {
  let folder = dirname(fileURLToPath(moduleUrl));
  for (;;) {
    const manifest = join(folder, 'package.json');
    if (
      existsSync(manifest) &&
      (JSON.parse(readFileSync(manifest, 'utf8')) as { name?: string }).name === name
    ) {
      return folder;
    }
    const parent = dirname(folder);
    if (parent === folder) throw new Error(`no package.json of ${name} above ${fileURLToPath(moduleUrl)}`);
    folder = parent;
  }
}
