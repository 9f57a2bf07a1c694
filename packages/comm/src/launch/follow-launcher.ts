import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Worker } from 'node:worker_threads';
import { folderVariable, socketName } from './launcher-presence.js';

/*
 * Runs on a thread of its own, since the main one may wait in native code for ranks that will never answer. Source text
 * rather than a file, so that it needs no resolution.
 */
const watcher = `
const { rmSync } = require('node:fs');
const { connect } = require('node:net');
const { workerData } = require('node:worker_threads');
const end = () => {
  rmSync(workerData.folder, { recursive: true, force: true });
  process.kill(process.pid, 'SIGKILL');
};
connect(workerData.socket).on('error', end).on('close', end).resume();
`;

/**
 * Ties this process to the launcher that started it, if one did: it ends when the launcher is gone, however that ended, and
 * leaves its exit code where the launcher looks for it. Called by the `fmoe` command.
 */
export function followLauncher(env: NodeJS.ProcessEnv = process.env): void {
  const folder = env[folderVariable];
  if (folder === undefined) return;
  const workerData = { folder, socket: join(folder, socketName) };
  new Worker(watcher, { eval: true, workerData, execArgv: [] }).unref();
  const note = (content: string): void => {
    try {
      writeFileSync(join(folder, exitFileOf(process.pid)), content);
    } catch {}
  };
  // Still there when the process is gone, it says that the process was killed.
  note(running);
  process.on('exit', (code) => note(`${code}`));
}

/** What stands in the file until the process ends by itself. */
export const running = 'running';

/** The file in the launcher's folder with the exit code of a process. */
export function exitFileOf(pid: number): string {
  return `exit-${pid}`;
}
