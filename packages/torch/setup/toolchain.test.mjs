import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { installCommand, packageManager } from './machine.mjs';
import { temporaryFolder, writeProgram } from './testing.mjs';
import { checkCompiler, checkNode, checkNpm, checkPython, requireTools } from './toolchain.mjs';

const DEBIAN = 'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nID=debian\n';
const UBUNTU = 'ID=ubuntu\nID_LIKE=debian\n';
const ROCKY = 'ID="rocky"\nID_LIKE="rhel centos fedora"\n';

describe('tool checks', () => {
  it('knows which Node is new enough', () => {
    expect(checkNode('20.19.0')).toMatchObject({ ok: true, found: '20.19.0' });
    expect(checkNode('24.0.1').ok).toBe(true);
    expect(checkNode('20.18.3')).toMatchObject({ ok: false });
    expect(checkNode('18.20.0').remedy).toContain('20.19 or newer');
  });

  it('names every missing tool with its remedy, all in one error', () => {
    const env = { PATH: temporaryFolder() };
    const checks = [checkNpm(env), checkPython(env), checkCompiler(env)];
    expect(checks.map((check) => check.ok)).toEqual([false, false, false]);
    /** @type {any} */
    let error;
    try {
      requireTools([...checks, checkNode('22.1.0')]);
    } catch (caught) {
      error = caught;
    }
    expect(error).toMatchObject({ code: 'ERR_SETUP' });
    expect(error.message).toContain('- npm: not on PATH');
    expect(error.message).toContain('- Python: no python3 on PATH');
    expect(error.message).toContain('- C++ compiler: no g++ on PATH');
    expect(error.message).not.toContain('- Node');
    expect(error.remedy.split('\n')).toHaveLength(3);
  });

  it('tells a Python that is too old from one without venv', () => {
    const folder = temporaryFolder();
    const env = { PATH: `${folder}:/usr/bin:/bin` };
    writeProgram(join(folder, 'python3'), 'echo 3.9.2');
    expect(checkPython(env)).toMatchObject({ ok: false });
    expect(checkPython(env).found).toContain('3.10 or newer is needed');
    writeProgram(join(folder, 'python3'), 'case "$2" in *venv*) exit 1;; *) echo 3.12.4;; esac');
    expect(checkPython(env).found).toContain('without venv and ensurepip');
    writeProgram(join(folder, 'python3'), 'echo 3.12.4');
    expect(checkPython(env)).toMatchObject({ ok: true, path: join(folder, 'python3') });
  });

  it('looks at CXX before g++', () => {
    const folder = temporaryFolder();
    writeProgram(join(folder, 'g++'), 'case "$1" in --version) echo "g++ 12.2.0";; *) echo 12.2.0;; esac');
    writeProgram(
      join(folder, 'clang++'),
      'case "$1" in --version) echo "clang version 7.0";; *) echo 7.0;; esac',
    );
    const env = { PATH: `${folder}:/usr/bin:/bin` };
    expect(checkCompiler(env)).toMatchObject({ ok: true, found: 'g++ 12.2.0' });
    expect(checkCompiler({ ...env, CXX: 'clang++' })).toMatchObject({ ok: false });
    expect(checkCompiler({ ...env, CXX: 'no-such' }).found).toBe('CXX=no-such does not run');
  });
});

describe('install commands', () => {
  it("use the system's package manager and its names", () => {
    expect([DEBIAN, UBUNTU, ROCKY, 'ID=arch', 'ID=plan9'].map((text) => packageManager(text))).toEqual([
      'apt',
      'apt',
      'dnf',
      'pacman',
      undefined,
    ]);
    expect(installCommand('g++', DEBIAN)).toMatch(/^(sudo )?apt-get install -y g\+\+$/);
    expect(installCommand('python3-venv', UBUNTU)).toMatch(/apt-get install -y python3-venv$/);
    expect(installCommand('g++', ROCKY)).toMatch(/^(sudo )?dnf install gcc-c\+\+$/);
    expect(installCommand('npm', 'ID=plan9')).toContain("your system's package manager");
  });
});
