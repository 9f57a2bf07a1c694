import { existsSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeAll, describe, expect, it } from 'vitest';
import { silentLog } from './log.mjs';
import { buildFolder, buildNative, isBuilt, readBuildRecord } from './native-build.mjs';
import { ensureBuildTools } from './python-env.mjs';
import { temporaryFolder, writeFiles } from './testing.mjs';

/** @type {import('./libtorch.mjs').Libtorch} */
const libtorch = {
  source: 'LIBTORCH',
  root: '/fake/torch',
  includeDirs: ['/fake/torch/include', '/fake/torch/api'],
  libDir: '/fake/torch/lib',
  version: '2.11.0+fake',
  tested: true,
  hasCuda: false,
};

const tools = () => ensureBuildTools({ log: silentLog });

const LIST = `cmake_minimum_required(VERSION 3.18)
project(sample C)
set(OUTPUT \${CMAKE_CURRENT_SOURCE_DIR}/build)
add_library(sample MODULE sample.c)
file(WRITE \${OUTPUT}/arguments.txt "\${FMOE_TORCH_INCLUDE}|\${FMOE_TORCH_LIB}|\${CMAKE_JS_INC}|\${FMOE_NODE_ADDON_API}")
`;

/** @param {object} [manifest] */
function samplePackage(manifest = {}) {
  const dir = temporaryFolder();
  writeFiles(dir, {
    'package.json': JSON.stringify({ name: '@fmoe/sample', ...manifest }),
    'native/CMakeLists.txt': LIST,
    'native/sample.c': 'int sample(void) { return 1; }\n',
  });
  return dir;
}

/** @param {string} dir */
function passedArguments(dir) {
  return readFileSync(join(buildFolder(dir), 'arguments.txt'), 'utf8').split('|');
}

describe('buildNative', () => {
  /** @type {string} */
  let dir;
  const build = (/** @type {object} */ more = {}) =>
    buildNative(dir, { libtorch, tools, log: silentLog, ...more });

  beforeAll(async () => {
    dir = samplePackage();
    expect(isBuilt(dir, libtorch)).toBe(false);
    expect(await build()).toBe('built');
  });

  it('puts the binary into native/build and records what it was made from', () => {
    expect(existsSync(join(buildFolder(dir), 'libsample.so'))).toBe(true);
    const record = readBuildRecord(dir);
    expect(record).toMatchObject({
      package: '@fmoe/sample',
      torchVersion: '2.11.0+fake',
      torchRoot: '/fake/torch',
      nodeAddonApi: '',
      outputs: ['libsample.so'],
    });
    expect(record?.sourceHash).toMatch(/^[0-9a-f]{64}$/);
    expect(passedArguments(dir)).toEqual(['/fake/torch/include;/fake/torch/api', '/fake/torch/lib', '', '']);
  });

  it('does nothing within a second when nothing has changed', async () => {
    const before = statSync(join(buildFolder(dir), 'libsample.so')).mtimeMs;
    const begin = performance.now();
    const never = () => Promise.reject(new Error('no tool is needed'));
    expect(await build({ tools: never })).toBe('up to date');
    expect(performance.now() - begin).toBeLessThan(1000);
    expect(statSync(join(buildFolder(dir), 'libsample.so')).mtimeMs).toBe(before);
  });

  it('builds again after a change of a source, of libtorch, of a variable, or a lost binary', async () => {
    writeFiles(dir, { 'native/sample.c': 'int sample(void) { return 2; }\n' });
    expect(isBuilt(dir, libtorch)).toBe(false);
    expect(await build()).toBe('built');
    expect(isBuilt(dir, { ...libtorch, version: '2.11.1' })).toBe(false);
    expect(isBuilt(dir, { ...libtorch, root: '/other' })).toBe(false);
    expect(isBuilt(dir, libtorch, { ...process.env, CXXFLAGS: '-O1' })).toBe(false);
    expect(isBuilt(dir, libtorch)).toBe(true);
    rmSync(join(buildFolder(dir), 'libsample.so'));
    expect(isBuilt(dir, libtorch)).toBe(false);
    expect(await build()).toBe('built');
    expect(isBuilt(dir, libtorch)).toBe(true);
  });

  it('keeps a build with other definitions in a folder of its own', async () => {
    const beside = join(buildFolder(dir), 'beside');
    const options = { build: beside, definitions: { SAMPLE_OPTION: 'ON' } };
    expect(await build(options)).toBe('built');
    expect(existsSync(join(beside, 'libsample.so'))).toBe(true);
    expect(readFileSync(join(beside, 'cmake/CMakeCache.txt'), 'utf8')).toMatch(/^SAMPLE_OPTION:\w+=ON$/m);
    expect(readBuildRecord(dir, beside)?.outputs).toEqual(['libsample.so']);
    expect(await build(options)).toBe('up to date');
    expect(await build()).toBe('up to date');
  });

  it('configures afresh when libtorch has moved', async () => {
    const moved = { ...libtorch, libDir: '/moved/lib', root: '/moved' };
    expect(await build({ libtorch: moved })).toBe('built');
    expect(passedArguments(dir)[1]).toBe('/moved/lib');
    expect(readBuildRecord(dir)?.torchRoot).toBe('/moved');
  });
});

describe('a build that fails', () => {
  it("shows the compiler's words and leaves no record, so that the next one builds", async () => {
    const dir = samplePackage();
    const options = { libtorch, tools, log: silentLog };
    await buildNative(dir, options);
    const good = readFileSync(join(dir, 'native/sample.c'));
    writeFileSync(join(dir, 'native/sample.c'), 'int sample(void) { return undeclared_name; }\n');
    await expect(buildNative(dir, options)).rejects.toThrow(/undeclared_name/);
    expect(readBuildRecord(dir)).toBeUndefined();
    writeFileSync(join(dir, 'native/sample.c'), good);
    expect(await buildNative(dir, options)).toBe('built');
  });

  it('is told when the package leaves no binary', async () => {
    const dir = samplePackage();
    writeFiles(dir, {
      'native/CMakeLists.txt': 'cmake_minimum_required(VERSION 3.18)\nproject(none NONE)\n',
    });
    const building = buildNative(dir, { libtorch, tools, log: silentLog });
    await expect(building).rejects.toThrow('left no .node or .so');
  });
});

describe('a package with binary.napi_versions', () => {
  it("gets Node-API's headers from cmake-js and node-addon-api's folder", async () => {
    const dir = samplePackage({ binary: { napi_versions: [8] } });
    await buildNative(dir, { libtorch, tools, log: silentLog });
    const [, , headers = '', addonApi = ''] = passedArguments(dir);
    expect(headers.split(';').some((folder) => existsSync(join(folder, 'node_api.h')))).toBe(true);
    expect(existsSync(join(addonApi, 'napi.h'))).toBe(true);
    expect(readBuildRecord(dir)?.nodeAddonApi).toMatch(/^\d+\.\d+\.\d+$/);
  });
});
