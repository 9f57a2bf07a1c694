import { generate, loadRun } from '@fmoe/models/training';
import { manualSeed } from '@fmoe/torch';
import type { Command } from 'commander';
import { type Context, print } from '../context.js';
import { exitCodeOf, interruptible } from '../interrupt.js';
import { integer, nonNegative } from '../options.js';

interface GenerateOptions {
  prompt: string;
  length: number;
  temperature: number;
  topK: number;
  seed: number;
  checkpoint: string;
  device?: string;
}

/** `fmoe generate`: text from a run's model. */
export function addGenerate(program: Command, context: Context): void {
  program
    .command('generate')
    .description("write text with a run's model")
    .argument('<run>', 'folder of the run')
    .option('-p, --prompt <text>', 'text to go on from', '\n')
    .option('-n, --length <tokens>', 'tokens to write', integer(1), 500)
    .option(
      '-t, --temperature <number>',
      'below 1 likelier tokens are preferred, 0 takes the likeliest',
      nonNegative,
      0.8,
    )
    .option('-k, --top-k <tokens>', 'draw among so many of the likeliest, 0 for all', integer(0), 0)
    .option('--seed <number>', 'seed of the draws', integer(0), 1)
    .option('--checkpoint <which>', 'last, best, a step, or a folder', 'last')
    .option('--device <device>', 'cpu, cuda or cuda:1; as in the run when left out')
    .action((run: string, options: GenerateOptions) => write(run, options, context));
}

async function write(folder: string, options: GenerateOptions, context: Context): Promise<void> {
  const { vocabulary, model, device } = await loadRun(folder, options);
  const { prompt, length, temperature, topK } = options;
  manualSeed(options.seed);
  const { result, stoppedBy } = await interruptible(
    (signal) => generate(model, vocabulary, { prompt, length, temperature, topK, device, signal }),
    () => {},
  );
  print(context, `${prompt.trimStart()}${result}`);
  if (stoppedBy !== undefined) context.setExitCode(exitCodeOf(stoppedBy));
}
