import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, describe, expect, it } from 'vitest';

const root = fileURLToPath(new URL('..', import.meta.url));

/**
 * Runs the layer rule over a small workspace of its own.
 *
 * @param {Readonly<Record<string, string>>} files
 */
function checkLayers(files) {
  const folder = mkdtempSync(join(tmpdir(), 'fmoe-layers-'));
  afterAll(() => rmSync(folder, { recursive: true, force: true }));
  const paths = { '@fmoe/*': ['./packages/*/src/index.ts'] };
  const all = {
    'tsconfig.json': JSON.stringify({ compilerOptions: { paths, module: 'NodeNext' } }),
    'packages/torch/src/index.ts': 'export const torch = 1;\n',
    'packages/layers/src/index.ts': "import { torch } from '@fmoe/torch';\nexport const layers = torch;\n",
    ...files,
  };
  for (const [path, content] of Object.entries(all)) {
    mkdirSync(dirname(join(folder, path)), { recursive: true });
    writeFileSync(join(folder, path), content);
  }
  const { status, stdout } = spawnSync(
    join(root, 'node_modules/.bin/depcruise'),
    ['--config', join(root, '.dependency-cruiser.cjs'), 'packages'],
    { cwd: folder, encoding: 'utf8' },
  );
  const broken = [...stdout.matchAll(/error ([a-z-]+): (\S+)/g)].map(([, rule, file]) => `${file}: ${rule}`);
  return { status, broken: [...new Set(broken)].sort() };
}

describe('the layer rule', () => {
  it('allows imports by name from lower layers, and cycles of types', () => {
    const files = {
      'packages/torch/src/a.ts': "import type { B } from './b.js';\nexport type A = B | 1;\n",
      'packages/torch/src/b.ts': "import type { A } from './a.js';\nexport type B = A[];\n",
    };
    expect(checkLayers(files)).toEqual({ status: 0, broken: [] });
  });

  it('fails on every kind of upward import, on deep imports and on cycles of values', () => {
    const { status, broken } = checkLayers({
      'packages/torch/src/value.ts': "import { layers } from '@fmoe/layers';\nexport const x = layers;\n",
      'packages/torch/src/type.ts':
        "import type { layers } from '@fmoe/layers';\nexport type X = typeof layers;\n",
      'packages/torch/src/dynamic.ts': "export const x = () => import('@fmoe/layers');\n",
      'packages/torch/src/unresolved.ts':
        "import { models } from '@fmoe/models';\nexport const x = models;\n",
      'packages/layers/src/deep.ts':
        "import { torch } from '../../torch/src/index.js';\nexport const x = torch;\n",
      'packages/layers/src/a.ts': "import { b } from './b.js';\nexport const a = (): number => b();\n",
      'packages/layers/src/b.ts': "import { a } from './a.js';\nexport const b = (): number => a();\n",
    });
    expect(status).not.toBe(0);
    expect(broken).toEqual([
      'packages/layers/src/a.ts: no-circular',
      'packages/layers/src/deep.ts: no-deep-import',
      'packages/torch/src/dynamic.ts: no-upward-import-from-torch',
      'packages/torch/src/type.ts: no-upward-import-from-torch',
      'packages/torch/src/unresolved.ts: no-upward-import-from-torch',
      'packages/torch/src/unresolved.ts: not-to-unresolvable',
      'packages/torch/src/value.ts: no-upward-import-from-torch',
    ]);
  });
});
