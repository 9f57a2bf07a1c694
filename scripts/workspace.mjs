import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { asSetupError } from '../packages/torch/setup/errors.mjs';
import { run } from '../packages/torch/setup/exec.mjs';
import { readJsonIfAny, writeJsonAtomically } from '../packages/torch/setup/files.mjs';
import { withLock } from '../packages/torch/setup/lock.mjs';
import { createLog, formatDuration } from '../packages/torch/setup/log.mjs';
import { findNativePackages } from '../packages/torch/setup/packages.mjs';
import { fmoeHome, locksFolder } from '../packages/torch/setup/paths.mjs';
import { prepareNative } from '../packages/torch/setup/prepare.mjs';
import {
  checkCompiler,
  checkNode,
  checkNpm,
  checkPython,
  requireTools,
} from '../packages/torch/setup/toolchain.mjs';

/** The top folder of the repository. */
export const root = fileURLToPath(new URL('..', import.meta.url));

/** Written last by a finished `pnpm install`. */
const stamp = join(root, 'node_modules/.fmoe-installed.json');

/**
 * The environment for the workspace's tools: its own programs first, and nothing sent home.
 *
 * @returns {Record<string, string | undefined>}
 */
export function toolEnvironment() {
  return {
    ...process.env,
    PATH: [join(root, 'node_modules/.bin'), process.env['PATH'] ?? ''].join(delimiter),
    npm_config_store_dir: join(fmoeHome(), 'pnpm-store'),
    // A workspace installed with another store is installed anew instead of asking.
    npm_config_confirm_modules_purge: 'false',
    npm_config_update_notifier: 'false',
    TURBO_TELEMETRY_DISABLED: '1',
    TURBO_NO_UPDATE_NOTIFIER: '1',
    DO_NOT_TRACK: '1',
  };
}

/** @returns {string} the version of pnpm that package.json pins */
function pinnedPnpm() {
  const { packageManager } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'));
  return String(packageManager)
    .replace(/^pnpm@/, '')
    .replace(/\+.*$/, '');
}

/**
 * Installs the pinned pnpm below FMOE_HOME, with npm, unless it is there.
 *
 * @param {import('../packages/torch/setup/log.mjs').Log} log
 * @returns {Promise<string>} its entry file, to be run with Node
 */
async function ensurePnpm(log) {
  const version = pinnedPnpm();
  const folder = join(fmoeHome(), 'tools', `pnpm-${version}`);
  const entry = join(folder, 'node_modules/pnpm/bin/pnpm.cjs');
  if (existsSync(entry)) return entry;
  return withLock(locksFolder(), `pnpm-${version}`, async () => {
    if (existsSync(entry)) return entry;
    await log.step(`pnpm ${version}`, async () => {
      const partial = `${folder}.partial`;
      rmSync(partial, { recursive: true, force: true });
      mkdirSync(partial, { recursive: true });
      const args = ['install', '--prefix', partial, '--no-audit', '--no-fund', `pnpm@${version}`];
      await run('npm', args, { cwd: partial, env: toolEnvironment() });
      rmSync(folder, { recursive: true, force: true });
      renameSync(partial, folder);
    });
    return entry;
  });
}

/** @returns {string} a digest of everything that decides what `pnpm install` installs */
function manifestsDigest() {
  const hash = createHash('sha256').update(process.version);
  const files = ['package.json', 'pnpm-workspace.yaml', 'pnpm-lock.yaml'];
  for (const group of ['packages', 'examples', 'benchmarks']) {
    if (!existsSync(join(root, group))) continue;
    for (const name of readdirSync(join(root, group)).sort()) files.push(`${group}/${name}/package.json`);
  }
  for (const file of files) {
    if (existsSync(join(root, file))) hash.update(`\0${file}\0`).update(readFileSync(join(root, file)));
  }
  return hash.digest('hex');
}

/**
 * @param {import('../packages/torch/setup/log.mjs').Log} log
 */
async function installPackages(log) {
  const digest = manifestsDigest();
  if (readJsonIfAny(stamp)?.digest === digest) return;
  const pnpm = await ensurePnpm(log);
  await log.step("the workspace's packages", async () => {
    rmSync(stamp, { force: true });
    const args = [
      pnpm,
      'install',
      '--frozen-lockfile',
      '--config.confirmModulesPurge=false',
      '--reporter=append-only',
    ];
    await run(process.execPath, args, { cwd: root, env: toolEnvironment() });
    writeJsonAtomically(stamp, { digest });
  });
}

/**
 * @param {import('../packages/torch/setup/log.mjs').Log} log
 */
async function buildTypeScript(log) {
  await log.step('TypeScript builds', async () => {
    const args = ['run', 'build', '--output-logs=errors-only', '--ui=stream'];
    await run(join(root, 'node_modules/.bin/turbo'), args, { cwd: root, env: toolEnvironment() });
  });
}

/**
 * Brings a clone to the point where everything runs: the workspace's packages, libtorch, native parts, JavaScript.
 *
 * What is done already is left alone, so a second call takes seconds. Ends the process with exit code 1 and a
 * message when something that the user can mend is missing.
 */
export async function setUp() {
  const begin = performance.now();
  const log = createLog();
  try {
    requireTools([checkNode()]);
    // On a first run all that is missing is named at once, before the first download.
    if (!existsSync(stamp)) requireTools([checkNpm(), checkPython(), checkCompiler()]);
    const clone = createHash('sha256').update(root).digest('hex').slice(0, 12);
    await withLock(
      locksFolder(),
      `clone-${clone}`,
      async () => {
        await installPackages(log);
        // The tests run over both families of MPI.
        const env = { ...process.env, FMOE_MPI: process.env['FMOE_MPI'] || 'openmpi,mpich' };
        await prepareNative({ log, env, packages: findNativePackages(root) });
        await buildTypeScript(log);
      },
      {
        onWait: (pid) =>
          log.note(`another set-up (process ${pid ?? 'unknown'}) runs in this clone; waiting for it`),
      },
    );
  } catch (error) {
    const known = asSetupError(error);
    if (!known) throw error;
    console.error(
      `\nSet-up failed. ${known.message}\n\nRun it again when that is mended; it goes on where it stopped.`,
    );
    process.exit(1);
  }
  console.log(`Set-up is complete (${formatDuration(performance.now() - begin)}).`);
}
