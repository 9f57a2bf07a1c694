import { ask } from './exec.mjs';
import { findProgram, isFile, readTextIfAny } from './files.mjs';

/** @typedef {'cpu' | 'cuda'} Variant */

/**
 * Whether this machine has an NVIDIA GPU with its driver.
 *
 * @returns {boolean}
 */
export function hasNvidiaGpu() {
  if (isFile('/proc/driver/nvidia/version')) return true;
  const tool = findProgram('nvidia-smi');
  return tool !== undefined && /^GPU \d+/m.test(ask(tool, ['-L']) ?? '');
}

/**
 * Which parts of libtorch this machine needs.
 *
 * `FMOE_TORCH_VARIANT` (`cpu` or `cuda`) decides when set, else the presence of an NVIDIA GPU.
 *
 * @param {import('./paths.mjs').Environment} [env]
 * @returns {Variant}
 */
export function wantedVariant(env = process.env) {
  const chosen = env['FMOE_TORCH_VARIANT'];
  if (chosen === 'cpu' || chosen === 'cuda') return chosen;
  return hasNvidiaGpu() ? 'cuda' : 'cpu';
}

/** Package names for each package manager; a tool's own name stands for the ones not listed. */
const packageNames = /** @type {const} */ ({
  'g++': { apt: 'g++', dnf: 'gcc-c++', zypper: 'gcc-c++', pacman: 'gcc' },
  python3: { apt: 'python3 python3-venv', dnf: 'python3', zypper: 'python3', pacman: 'python' },
  'python3-venv': { apt: 'python3-venv', dnf: 'python3', zypper: 'python3', pacman: 'python' },
  npm: { apt: 'npm', dnf: 'npm', zypper: 'npm', pacman: 'npm' },
});

/** @typedef {keyof typeof packageNames} Tool */

/**
 * @param {string} osRelease the text of /etc/os-release
 * @returns {'apt' | 'dnf' | 'zypper' | 'pacman' | undefined} the package manager of that system
 */
export function packageManager(osRelease) {
  const ids = [...osRelease.matchAll(/^(?:ID|ID_LIKE)="?([^"\n]*)"?$/gm)].flatMap((m) =>
    (m[1] ?? '').split(' '),
  );
  if (ids.some((id) => id === 'debian' || id === 'ubuntu')) return 'apt';
  if (ids.some((id) => id === 'fedora' || id === 'rhel' || id === 'centos')) return 'dnf';
  if (ids.some((id) => id.startsWith('opensuse') || id === 'suse')) return 'zypper';
  if (ids.includes('arch')) return 'pacman';
  return undefined;
}

/**
 * The command that installs a tool on this system.
 *
 * @param {Tool} tool
 * @param {string} [osRelease] the text of /etc/os-release
 * @returns {string}
 */
export function installCommand(tool, osRelease = readTextIfAny('/etc/os-release') ?? '') {
  const manager = packageManager(osRelease);
  if (!manager) return `install ${tool} with your system's package manager`;
  const name = packageNames[tool][manager];
  const sudo = process.getuid?.() === 0 ? '' : 'sudo ';
  if (manager === 'pacman') return `${sudo}pacman -S ${name}`;
  if (manager === 'zypper') return `${sudo}zypper install ${name}`;
  if (manager === 'dnf') return `${sudo}dnf install ${name}`;
  return `${sudo}apt-get install -y ${name}`;
}
