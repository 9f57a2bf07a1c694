import { createRequire } from 'node:module';
import { Command, CommanderError } from 'commander';
import { addCheckpoint } from './commands/checkpoint.js';
import { addDoctor } from './commands/doctor.js';
import { addEval } from './commands/eval.js';
import { addGenerate } from './commands/generate.js';
import { addLaunch } from './commands/launch.js';
import { addPlot } from './commands/plot.js';
import { addRun } from './commands/run.js';
import { addTrain } from './commands/train.js';
import type { Context } from './context.js';
import { type Output, standardOutput } from './output.js';
import { describeError } from './report-error.js';

const { version } = createRequire(import.meta.url)('../package.json') as { version: string };

/**
 * Runs the command line.
 *
 * @param args what follows `fmoe`
 * @param output where to write; the process's own streams when left out
 * @returns the exit code: 0, 1 after any error, 130 or 143 when a signal stopped a training, that of the rank that failed
 */
export async function runCli(args: readonly string[], output: Output = standardOutput): Promise<number> {
  let exitCode = 0;
  const context: Context = {
    ...output,
    setExitCode: (code) => {
      exitCode = code;
    },
  };
  const program = new Command('fmoe')
    .description('Train Mixture-of-Experts models.')
    .version(version)
    .exitOverride()
    // What follows a script belongs to the script.
    .enablePositionalOptions()
    .configureOutput({
      writeOut: (text) => output.out.write(text),
      // Reported below, in the form of all other errors.
      writeErr: () => {},
    });
  for (const add of [addTrain, addEval, addGenerate, addPlot, addLaunch, addRun, addCheckpoint, addDoctor])
    add(program, context);
  try {
    await program.parseAsync(args, { from: 'user' });
    return exitCode;
  } catch (error) {
    if (error instanceof CommanderError) {
      if (error.exitCode === 0) return 0;
      output.error.write(usageError(error, program));
    } else {
      output.error.write(describeError(error));
    }
    return 1;
  }
}

function usageError(error: CommanderError, program: Command): string {
  // Without a command commander shows the help, which is no message of its own.
  if (error.code === 'commander.help') return program.helpInformation();
  const message = error.message.replace(/^error: /, '').replaceAll('\n', ' ');
  return `fmoe: ERR_ARGUMENT: ${message} (fmoe --help lists what there is.)\n`;
}
