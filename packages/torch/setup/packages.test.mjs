import { mkdirSync, symlinkSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { findNativePackages } from './packages.mjs';
import { temporaryFolder, writeFiles } from './testing.mjs';

/**
 * @param {string} dir
 * @param {string} name
 * @param {boolean} native
 */
function writePackage(dir, name, native) {
  writeFiles(dir, { 'package.json': JSON.stringify({ name }) });
  if (native) writeFiles(dir, { 'native/CMakeLists.txt': '' });
}

describe('findNativePackages', () => {
  it('finds them in node_modules here and above, lowest layer first', () => {
    const root = temporaryFolder();
    const scope = join(root, 'node_modules/@fmoe');
    for (const name of ['comm', 'kernels', 'torch']) writePackage(join(scope, name), `@fmoe/${name}`, true);
    writePackage(join(scope, 'layers'), '@fmoe/layers', false);
    writePackage(join(root, 'node_modules/other'), 'other', true);
    const start = join(root, 'a/b');
    mkdirSync(start, { recursive: true });
    const found = findNativePackages(start, join(scope, 'torch'));
    expect(found.map(({ name }) => name)).toEqual(['@fmoe/torch', '@fmoe/kernels', '@fmoe/comm']);
    expect(found[0]?.dir).toBe(join(scope, 'torch'));
  });

  it('finds what pnpm keeps beside a linked package', () => {
    const root = temporaryFolder();
    const store = join(root, 'node_modules/.pnpm/layers/node_modules/@fmoe');
    writePackage(join(store, 'layers'), '@fmoe/layers', false);
    const torch = join(root, 'node_modules/.pnpm/torch/node_modules/@fmoe/torch');
    writePackage(torch, '@fmoe/torch', true);
    symlinkSync(torch, join(store, 'torch'));
    mkdirSync(join(root, 'node_modules/@fmoe'));
    symlinkSync(join(store, 'layers'), join(root, 'node_modules/@fmoe/layers'));
    const found = findNativePackages(root, join(root, 'nowhere'));
    expect(found).toEqual([{ name: '@fmoe/torch', dir: torch }]);
  });

  it('takes a package once, however often it is linked, and does not run away in cycles', () => {
    const root = temporaryFolder();
    const packages = join(root, 'packages');
    for (const name of ['torch', 'kernels']) writePackage(join(packages, name), `@fmoe/${name}`, true);
    const inner = join(packages, 'kernels/node_modules/@fmoe/torch');
    mkdirSync(dirname(inner), { recursive: true });
    symlinkSync(join(packages, 'torch'), inner);
    const found = findNativePackages(join(packages, 'kernels'), join(packages, 'torch'));
    expect(found.map(({ dir }) => dir)).toEqual([join(packages, 'torch'), join(packages, 'kernels')]);
  });
});
