import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { temporaryFolder, writeFiles } from './testing.mjs';

const cli = fileURLToPath(new URL('./cli.mjs', import.meta.url));

/**
 * @param {string[]} args
 * @param {Record<string, string>} env
 */
function fmoeSetup(args, env) {
  const cwd = temporaryFolder();
  const { PATH = '' } = process.env;
  return spawnSync(process.execPath, [cli, ...args], { cwd, env: { PATH, ...env }, encoding: 'utf8' });
}

describe('fmoe-setup', () => {
  it('explains itself, and refuses options that it does not know', () => {
    const help = fmoeSetup(['--help'], {});
    expect([help.status, help.stdout.split('\n')[0]]).toEqual([0, 'Usage: fmoe-setup [--check] [--force]']);
    const wrong = fmoeSetup(['--chekc'], {});
    expect(wrong.status).toBe(2);
    expect(wrong.stderr).toContain('Unknown option --chekc');
  });

  it('--check reports gaps with exit code 1 and changes nothing', () => {
    const home = join(temporaryFolder(), 'home');
    const { status, stdout } = fmoeSetup(['--check'], { FMOE_HOME: home });
    expect(status).toBe(1);
    expect(stdout).toContain('native part of @fmoe/torch');
    expect(stdout).toContain(`${home}/envs/torch-2.11.0-`);
    expect(spawnSync('ls', [home]).status).not.toBe(0);
  });

  it('says what to do where FMOE_HOME cannot be written', () => {
    const file = join(temporaryFolder(), 'file');
    writeFiles(join(file, '..'), { file: '' });
    const { status, stderr } = fmoeSetup([], { FMOE_HOME: join(file, 'home') });
    expect(status).toBe(1);
    expect(stderr).toMatch(/^Set-up failed\. ENOTDIR.*\n {2}Remedy: .*FMOE_HOME/);
  });

  it('fails with one message and exit code 1, without a stack, where LIBTORCH is wrong', () => {
    const empty = temporaryFolder();
    writeFiles(empty, { 'lib/other.so': '' });
    const { status, stderr } = fmoeSetup([], { FMOE_HOME: empty, LIBTORCH: empty });
    expect(status).toBe(1);
    expect(stderr).toMatch(/^Set-up failed\. No usable libtorch/);
    expect(stderr).not.toMatch(/^\s+at /m);
  });
});
