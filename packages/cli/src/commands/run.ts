import { existsSync } from 'node:fs';
import { resolve } from 'node:path';
import { FmoeError } from '@fmoe/torch';
import type { Command } from 'commander';
import type { Context } from '../context.js';
import { loadModule } from '../load-module.js';

/** `fmoe run`: a script with this command's own packages. */
export function addRun(program: Command, context: Context): void {
  program
    .command('run')
    .description("run a TypeScript or JavaScript file with fmoe's own packages")
    .argument('<script>', 'the file')
    .argument('[args...]', 'what it finds in process.argv')
    .passThroughOptions()
    .action((script: string, args: string[]) => run(script, args, context));
}

async function run(script: string, args: readonly string[], context: Context): Promise<void> {
  const path = resolve(script);
  if (!existsSync(path)) throw new FmoeError('ERR_FILE', `There is no script ${path}.`);
  process.argv.splice(1, process.argv.length, path, ...args);
  try {
    await loadModule(path);
  } catch (error) {
    // The script is the user's own program: its error is shown as Node shows it, with the place.
    context.error.write(`${error instanceof Error ? (error.stack ?? error.message) : String(error)}\n`);
    context.setExitCode(1);
  }
}
