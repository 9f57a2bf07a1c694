import { execFileSync, spawn } from 'node:child_process';
import { SetupError } from './errors.mjs';
import { findProgram } from './files.mjs';

/** How much of a failed command's output is shown: its end is what tells why. */
const SHOWN_CHARACTERS = 6000;

/** @type {Set<import('node:child_process').ChildProcess>} */
const running = new Set();

/** @type {Set<() => void>} */
const cleanups = new Set();

const exitCodes = /** @type {const} */ ({ SIGINT: 130, SIGTERM: 143, SIGHUP: 129 });

/** @typedef {keyof typeof exitCodes} EndingSignal */

const signals = /** @type {EndingSignal[]} */ (Object.keys(exitCodes));

/**
 * Ends what set-up has started when set-up itself is told to end, so that nothing writes on behind its back.
 *
 * @param {NodeJS.Signals} signal
 */
function endAll(signal) {
  for (const child of running) {
    try {
      // The child leads a group of its own, so that compilers under it end as well.
      if (child.pid !== undefined) process.kill(-child.pid, 'SIGTERM');
    } catch {
      // Gone already.
    }
  }
  for (const cleanup of cleanups) cleanup();
  console.error('\nSet-up was interrupted. Run it again to go on.');
  process.exit(exitCodes[/** @type {EndingSignal} */ (signal)]);
}

/** Listens to signals while there is something to end or to clean up, and only then. */
function watchSignals() {
  const needed = cleanups.size > 0;
  const watching = process.listeners('SIGTERM').includes(endAll);
  if (needed === watching) return;
  for (const signal of signals) {
    if (needed) process.on(signal, endAll);
    else process.off(signal, endAll);
  }
}

/**
 * A prefix for commands so that they end with set-up even if it is killed outright and cannot tell them;
 * otherwise the next set-up would work beside the orphans of the first.
 *
 * @returns {string[]}
 */
function dyingWithParent() {
  const setpriv = findProgram('setpriv');
  return setpriv ? [setpriv, '--pdeathsig', 'TERM', '--'] : [];
}

/**
 * Runs `cleanup` if a signal ends the process.
 *
 * @param {() => void} cleanup
 * @returns {() => void} call it to take `cleanup` off again
 */
export function onInterrupt(cleanup) {
  cleanups.add(cleanup);
  watchSignals();
  return () => {
    cleanups.delete(cleanup);
    watchSignals();
  };
}

/**
 * @typedef {object} RunOptions
 * @property {string} [cwd]
 * @property {Record<string, string | undefined>} [env] the whole environment; that of this process when absent
 * @property {boolean} [show] let the command write to the terminal itself instead of keeping its output
 */

/**
 * Runs a command to its end and keeps its output for the case that it fails.
 *
 * @param {string} program
 * @param {readonly string[]} args
 * @param {RunOptions} [options]
 * @returns {Promise<string>} what it wrote, standard output and error together
 * @throws {SetupError} when it cannot be started or exits with a code other than 0
 */
export function run(program, args, options = {}) {
  return new Promise((resolve, reject) => {
    // Listening begins before the command does: no moment is left in which a signal would orphan it.
    const forget = onInterrupt(() => {});
    const [command, ...rest] = /** @type {[string, ...string[]]} */ ([
      ...dyingWithParent(),
      program,
      ...args,
    ]);
    const child = spawn(command, rest, {
      cwd: options.cwd,
      env: options.env ?? process.env,
      stdio: options.show ? ['ignore', 'inherit', 'inherit'] : ['ignore', 'pipe', 'pipe'],
      detached: true,
    });
    running.add(child);
    const finished = () => {
      running.delete(child);
      forget();
    };
    let output = '';
    /** @param {Buffer} chunk */
    const keep = (chunk) => {
      output += chunk.toString();
    };
    child.stdout?.on('data', keep);
    child.stderr?.on('data', keep);
    child.once('error', (cause) => {
      finished();
      reject(new SetupError(`Could not start ${program}: ${cause.message}`, undefined, { cause }));
    });
    child.once('close', (code, signal) => {
      finished();
      if (code === 0) {
        resolve(output);
        return;
      }
      const end = signal ? `was ended by ${signal}` : `failed with exit code ${code}`;
      const tail = output.length > SHOWN_CHARACTERS ? `...${output.slice(-SHOWN_CHARACTERS)}` : output;
      const said = tail.trim() === '' ? '' : `\n${tail.trimEnd().replace(/^/gm, '  | ')}`;
      reject(new SetupError(`${[program, ...args].join(' ')} ${end}.${said}`));
    });
  });
}

/**
 * Asks a program something small.
 *
 * @param {string} program
 * @param {readonly string[]} args
 * @param {{ env?: Record<string, string | undefined> }} [options]
 * @returns {string | undefined} its standard output, trimmed; nothing when it is missing or fails
 */
export function ask(program, args, options = {}) {
  try {
    return execFileSync(program, args, {
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'ignore'],
      env: options.env ?? process.env,
      timeout: 60_000,
    }).trim();
  } catch {
    return undefined;
  }
}
