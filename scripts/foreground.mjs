import { spawn } from 'node:child_process';

/**
 * Runs a program in the foreground, as if it had been started instead of this process.
 *
 * @param {string} program
 * @param {readonly string[]} args
 * @param {{ cwd: string, env: Record<string, string | undefined> }} options
 * @returns {Promise<number>} its exit code; 128 + the number of the signal when one ended it
 */
export function foreground(program, args, { cwd, env }) {
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, { cwd, env, stdio: 'inherit' });
    // Ctrl-C reaches the child by itself; it decides when to stop, and this process waits for it.
    const ignore = () => {};
    const forward = () => child.kill('SIGTERM');
    process.on('SIGINT', ignore);
    process.on('SIGTERM', forward);
    child.once('error', reject);
    child.once('close', (code, signal) => {
      process.off('SIGINT', ignore);
      process.off('SIGTERM', forward);
      const signals = { SIGINT: 2, SIGKILL: 9, SIGSEGV: 11, SIGABRT: 6, SIGTERM: 15 };
      resolve(code ?? 128 + (signals[/** @type {keyof typeof signals} */ (signal)] ?? 0));
    });
  });
}
