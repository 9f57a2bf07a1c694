import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { temporaryFolder } from '../../../test/support/temporary-folder.js';
import { modelSchema } from '../config/model-schema.js';
import { findModule } from './find-module.js';
import { loadPlugins } from './index.js';
import { absolutePlugin, isPluginName } from './plugin-name.js';

/** A folder with `node_modules`, and one below it without. */
function project(packages: Record<string, { manifest: object; files: Record<string, string> }>): string {
  const folder = temporaryFolder();
  for (const [name, { manifest, files }] of Object.entries(packages)) {
    const root = join(folder, 'node_modules', name);
    mkdirSync(root, { recursive: true });
    writeFileSync(join(root, 'package.json'), JSON.stringify({ name, type: 'module', ...manifest }));
    for (const [file, text] of Object.entries(files)) writeFileSync(join(root, file), text);
  }
  mkdirSync(join(folder, 'inner'));
  return join(folder, 'inner');
}

const config = (moe: object) =>
  modelSchema.parse({
    kind: 'transformer-xl',
    nLayer: 1,
    nHead: 1,
    dModel: 4,
    dInner: 4,
    memLen: 0,
    moe: { numExpert: 2, ...moe },
  });

describe('names of plug-ins', () => {
  it('are a module, a hash and an export', () => {
    for (const name of ['a#B', '@a/b#C', '@a/b/c#d', './a.js#B', '/x/y z.js#B'.replace(' ', ''), 'a#$b_1']) {
      expect(isPluginName(name)).toBe(true);
    }
    for (const name of ['naive', '#B', 'a#', 'a#b.c', 'a#b#c', 'a b#c', 'a#1'])
      expect(isPluginName(name)).toBe(false);
  });

  it('keep packages and make files absolute', () => {
    expect(absolutePlugin('./a.js#B', '/x')).toBe('/x/a.js#B');
    expect(absolutePlugin('../a.js#B', '/x/y')).toBe('/x/a.js#B');
    expect(absolutePlugin('@a/b#C', '/x')).toBe('@a/b#C');
    expect(absolutePlugin('naive', '/x')).toBe('naive');
  });
});

describe('findModule', () => {
  const files = { 'index.js': '', 'other.js': '' };
  it.each<[string, object, string, string | undefined]>([
    ['exports as a text', { exports: './other.js' }, 'p', 'other.js'],
    ['conditions', { exports: { require: './no.cjs', import: './other.js' } }, 'p', 'other.js'],
    [
      'nested conditions',
      { exports: { '.': { types: './t.d.ts', import: { default: './other.js' } } } },
      'p',
      'other.js',
    ],
    ['a subpath', { exports: { '.': './index.js', './sub': './other.js' } }, 'p/sub', 'other.js'],
    ['a subpath that is not exported', { exports: { '.': './index.js' } }, 'p/sub', undefined],
    ['main', { main: 'other.js' }, 'p', 'other.js'],
    ['nothing', {}, 'p', 'index.js'],
    ['a file without exports', {}, 'p/other.js', 'other.js'],
    ['a package that is not there', {}, 'q', undefined],
  ])('resolves %s', (_, manifest, name, wanted) => {
    const found = findModule(name, project({ p: { manifest, files } }));
    if (wanted === undefined) expect(found).toBeUndefined();
    else expect(found).toMatch(new RegExp(`/node_modules/p/${wanted.replace('.', '\\.')}$`));
  });
});

describe('loadPlugins', () => {
  const text = 'export class Gate {}\nexport function makeExpert() {}\nexport const number = 3;';
  const folder = project({
    '@me/gates': { manifest: { exports: { import: './main.js' } }, files: { 'main.js': text } },
    broken: { manifest: {}, files: { 'index.js': 'throw new Error("no luck");' } },
  });

  it('imports classes and functions from packages', async () => {
    const plugins = await loadPlugins(
      config({ gate: '@me/gates#Gate', expert: '@me/gates#makeExpert' }),
      folder,
    );
    expect(plugins.gate?.name).toBe('Gate');
    expect(plugins.expert?.name).toBe('makeExpert');
  });

  it('loads nothing for gates by name and dense models', async () => {
    expect(await loadPlugins(config({ gate: 'noisy' }), folder)).toEqual({});
    expect(await loadPlugins({ ...config({}), moe: undefined }, folder)).toEqual({});
  });

  it.each([
    ['@me/gates#Gate2', /@me\/gates exports no class or function Gate2; it has Gate, makeExpert\./],
    ['@me/gates#number', /exports no class or function number/],
    ['no-such-package#Gate', /no-such-package does not load/],
    ['broken#Gate', /broken does not load: no luck/],
    ['/no/such/file.js#Gate', /does not load/],
  ])('refuses %s', async (gate, message) => {
    await expect(loadPlugins(config({ gate }), folder)).rejects.toMatchObject({
      code: 'ERR_CONFIG',
      message: expect.stringMatching(message),
    });
  });
});
