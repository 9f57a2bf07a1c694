import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { findLibtorch } from './libtorch.mjs';
import {
  temporaryFolder,
  writeFakeEnvironment,
  writeFakeTorch,
  writeFiles,
  writeProgram,
} from './testing.mjs';

/** @param {() => unknown} work */
function messageOf(work) {
  try {
    work();
  } catch (error) {
    const { code, message } = /** @type {{ code?: string, message: string }} */ (error);
    expect(code).toBe('ERR_SETUP');
    return message;
  }
  throw new Error('expected an error');
}

/** A machine on which all three rules would find something, each another version. */
function fullMachine() {
  const root = temporaryFolder();
  const home = join(root, 'home');
  writeFakeTorch(join(root, 'own'), '2.10.0');
  writeFakeTorch(join(root, 'python/torch'), '2.9.1+cpu');
  writeProgram(join(root, 'venv/bin/python'), `echo ${join(root, 'python/torch')}`);
  writeFakeEnvironment(join(home, 'envs/torch-2.11.0-cpu'));
  return {
    root,
    home,
    env: {
      FMOE_HOME: home,
      FMOE_TORCH_VARIANT: 'cpu',
      PATH: '/nonexistent',
      LIBTORCH: join(root, 'own'),
      LIBTORCH_USE_PYTORCH: '1',
      VIRTUAL_ENV: join(root, 'venv'),
    },
  };
}

describe('findLibtorch', () => {
  it('takes LIBTORCH first, the active Python second, the environment of set-up last', () => {
    const { env, home, root } = fullMachine();
    const first = findLibtorch(env);
    expect(first).toEqual({
      source: 'LIBTORCH',
      root: join(root, 'own'),
      includeDirs: [join(root, 'own/include'), join(root, 'own/include/torch/csrc/api/include')],
      libDir: join(root, 'own/lib'),
      version: '2.10.0',
      tested: false,
      hasCuda: false,
    });
    const second = findLibtorch({ ...env, LIBTORCH: undefined });
    expect([second.source, second.version]).toEqual(['LIBTORCH_USE_PYTORCH', '2.9.1+cpu']);
    const third = findLibtorch({ ...env, LIBTORCH: undefined, LIBTORCH_USE_PYTORCH: '0' });
    expect([third.source, third.version, third.tested]).toEqual(['FMOE_HOME', '2.11.0+cu130', true]);
    expect(third.root.startsWith(home)).toBe(true);
  });

  it('lists each place tried and the remedy when nothing is there', () => {
    const home = temporaryFolder();
    const message = messageOf(() => findLibtorch({ FMOE_HOME: home, FMOE_TORCH_VARIANT: 'cpu', PATH: '' }));
    const lines = message.split('\n');
    expect(lines[0]).toBe('No usable libtorch. Tried, in this order:');
    expect(lines[1]).toBe('  - LIBTORCH: not set');
    expect(lines[2]).toBe('  - LIBTORCH_USE_PYTORCH: not set to 1');
    expect(lines[3]).toBe(`  - FMOE_HOME: ${join(home, 'envs/torch-2.11.0-cpu')}: does not exist`);
    expect(lines[4]).toBe(`  - FMOE_HOME: ${join(home, 'envs/torch-2.11.0-cuda')}: does not exist`);
    expect(lines[5]).toMatch(/^ {2}Remedy: run `npx fmoe-setup`.*LIBTORCH.*LIBTORCH_USE_PYTORCH=1/);
    expect(lines).toHaveLength(6);
  });

  it('looks for the environment that fits the machine first', () => {
    const home = temporaryFolder();
    for (const variant of ['cpu', 'cuda']) writeFakeEnvironment(join(home, `envs/torch-2.11.0-${variant}`));
    const root = (/** @type {string} */ variant) =>
      findLibtorch({ FMOE_HOME: home, FMOE_TORCH_VARIANT: variant }).root;
    expect(root('cpu')).toContain('torch-2.11.0-cpu');
    expect(root('cuda')).toContain('torch-2.11.0-cuda');
    rmSync(join(home, 'envs/torch-2.11.0-cuda'), { recursive: true });
    expect(root('cuda')).toContain('torch-2.11.0-cpu');
  });

  it('does not take an environment without its marker', () => {
    const home = temporaryFolder();
    const folder = join(home, 'envs/torch-2.11.0-cpu');
    writeFakeEnvironment(folder);
    const env = { FMOE_HOME: home, FMOE_TORCH_VARIANT: 'cpu' };
    expect(findLibtorch(env).source).toBe('FMOE_HOME');
    rmSync(join(folder, 'fmoe-environment.json'));
    expect(messageOf(() => findLibtorch(env))).toContain(`${folder}: not complete (set-up was interrupted)`);
  });

  it('follows LIBTORCH_INCLUDE and LIBTORCH_LIB, naming the folders or those above them', () => {
    const root = temporaryFolder();
    writeFiles(root, {
      'usr/include/ATen/ATen.h': '',
      'usr/include/torch/csrc/api/include/torch/version.h':
        '#define TORCH_VERSION_MAJOR 2\n#define TORCH_VERSION_MINOR 12\n#define TORCH_VERSION_PATCH 3\n',
      'usr/lib/multiarch/libtorch_cpu.so': '',
    });
    for (const include of ['usr', 'usr/include']) {
      const found = findLibtorch({
        LIBTORCH_INCLUDE: join(root, include),
        LIBTORCH_LIB: join(root, 'usr/lib/multiarch'),
      });
      expect(found.includeDirs[0]).toBe(join(root, 'usr/include'));
      expect(found.libDir).toBe(join(root, 'usr/lib/multiarch'));
      expect(found.version).toBe('2.12.3');
    }
  });

  it('refuses a variable that leads nowhere instead of taking the next rule', () => {
    const { env, root } = fullMachine();
    const wrong = messageOf(() => findLibtorch({ ...env, LIBTORCH: join(root, 'nothing') }));
    expect(wrong).toContain(`LIBTORCH=${join(root, 'nothing')}`);
    expect(wrong).toContain('has no libtorch_cpu.so');
    expect(wrong).toContain('correct or unset these variables');
    writeProgram(join(root, 'empty/bin/python'), 'echo');
    const bare = { ...env, LIBTORCH: undefined, VIRTUAL_ENV: join(root, 'empty') };
    expect(messageOf(() => findLibtorch(bare))).toMatch(
      /LIBTORCH_USE_PYTORCH=1: .*python has no torch package/,
    );
    const none = { ...env, LIBTORCH: undefined, VIRTUAL_ENV: undefined };
    expect(messageOf(() => findLibtorch(none))).toContain('LIBTORCH_USE_PYTORCH=1: no python3 on PATH');
  });

  it('refuses versions out of range and says how to let them through', () => {
    const root = temporaryFolder();
    writeFakeTorch(join(root, 'old'), '2.8.0');
    writeFakeTorch(join(root, 'major'), '3.0.0');
    for (const name of ['old', 'major']) {
      const env = { LIBTORCH: join(root, name) };
      expect(messageOf(() => findLibtorch(env))).toMatch(
        /accepted is 2\.9 up to the end of 2\.x, tested 2\.11\.0/,
      );
      expect(findLibtorch({ ...env, FMOE_IGNORE_LIBTORCH_VERSION: '1' }).tested).toBe(false);
    }
  });

  it('reads the version of an archive, and needs one', () => {
    const root = temporaryFolder();
    writeFiles(root, { 'include/ATen/ATen.h': '', 'lib/libtorch_cpu.so': '' });
    expect(messageOf(() => findLibtorch({ LIBTORCH: root }))).toContain('does not tell its version');
    writeFiles(root, { 'build-version': '2.11.1+cpu\n' });
    expect(findLibtorch({ LIBTORCH: root })).toMatchObject({ version: '2.11.1+cpu', tested: true });
  });

  it('counts CUDA as present only where cuDNN is there too', () => {
    const site = temporaryFolder();
    const root = join(site, 'torch');
    writeFakeTorch(root);
    expect(findLibtorch({ LIBTORCH: root }).hasCuda).toBe(false);
    writeFiles(root, { 'lib/libtorch_cuda.so': '' });
    expect(findLibtorch({ LIBTORCH: root }).hasCuda).toBe(false);
    writeFiles(site, { 'nvidia/cudnn/lib/libcudnn.so.9': '' });
    expect(findLibtorch({ LIBTORCH: root }).hasCuda).toBe(true);
  });
});
