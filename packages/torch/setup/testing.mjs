import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterAll } from 'vitest';

/**
 * @returns {string} a new empty folder, removed when the test file is done
 */
export function temporaryFolder() {
  const folder = mkdtempSync(join(tmpdir(), 'fmoe-setup-'));
  afterAll(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

/**
 * @param {string} root
 * @param {Readonly<Record<string, string>>} files contents by path below `root`
 */
export function writeFiles(root, files) {
  for (const [path, content] of Object.entries(files)) {
    mkdirSync(dirname(join(root, path)), { recursive: true });
    writeFileSync(join(root, path), content);
  }
}

/**
 * @param {string} path
 * @param {string} body of a shell script
 */
export function writeProgram(path, body) {
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, `#!/bin/sh\n${body}\n`);
  chmodSync(path, 0o755);
}

/**
 * Files that make a folder look like the `torch` package of a wheel.
 *
 * @param {string} root
 * @param {string} [version]
 */
export function writeFakeTorch(root, version = '2.11.0+cu130') {
  writeFiles(root, {
    'version.py': `__version__ = '${version}'\n`,
    'include/ATen/ATen.h': '',
    'lib/libtorch_cpu.so': '',
    'lib/libc10.so': '',
  });
}

/**
 * Files that make a folder look like an environment that set-up finished.
 *
 * @param {string} folder
 * @param {string} [version]
 */
export function writeFakeEnvironment(folder, version) {
  const sitePackages = 'lib/python3.12/site-packages';
  writeFakeTorch(join(folder, sitePackages, 'torch'), version);
  writeProgram(join(folder, 'bin/python'), 'exit 1');
  writeFiles(folder, {
    'fmoe-environment.json': JSON.stringify({ name: 'x', requirements: [], sitePackages, python: '3.12.1' }),
  });
}
