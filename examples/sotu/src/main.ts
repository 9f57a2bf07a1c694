/**
 * The main job: trains a Mixture-of-Experts Transformer-XL and a dense one with the same compute per token on 231 years of
 * speeches, and compares them.
 *
 *   --resume   go on with a job that was interrupted
 *   --steps N  train for fewer or more steps than the configurations say
 */
import { join, relative } from 'node:path';
import { parseArgs } from 'node:util';
import { describeError, exitCodeOf, interruptible } from '@fmoe/cli';
import { readRun, writeReport } from '@fmoe/models/report';
import {
  type Config,
  generate,
  ProgressSink,
  type ResolvedConfig,
  RunFolder,
  resolveConfig,
  runTraining,
} from '@fmoe/models/training';
import { manualSeed } from '@fmoe/torch';
import { dataFolder, runsFolder } from '../base.js';
import dense from '../dense.config.js';
import moe from '../moe.config.js';
import { prepareSotu } from './prepare.js';
import { finalLoss, resultTable } from './table.js';

const print = (text: string): void => console.log(text);
// npm starts scripts in the package's folder and says where the user stands.
const shown = (path: string): string => relative(process.env['INIT_CWD'] ?? process.cwd(), path) || path;

async function main(): Promise<number> {
  const { values: options } = parseArgs({
    options: { resume: { type: 'boolean', default: false }, steps: { type: 'string' } },
  });
  const configs = [moe, dense].map((config) => configure(config, options.steps));
  printData();
  const { result: finished, stoppedBy } = await interruptible(
    (signal) => trainAll(configs, options.resume, signal),
    () => print('\nStopping: saving a checkpoint. Press Ctrl-C again to stop at once.'),
  );
  if (!finished) {
    print('Stopped. Go on with: npm start -- --resume');
    return exitCodeOf(stoppedBy ?? 'SIGINT');
  }
  await report(configs);
  return 0;
}

function configure(config: Config, steps: string | undefined): ResolvedConfig {
  if (steps === undefined) return resolveConfig(config);
  return resolveConfig({ ...config, training: { ...config.training, steps: Number(steps) } });
}

function printData(): void {
  const { source, vocabulary, splits } = prepareSotu(dataFolder);
  print(`Data: ${source}, ${vocabulary} symbols, split by year`);
  for (const [name, { years, speeches, characters }] of Object.entries(splits)) {
    const counted = `${speeches} speeches, ${characters.toLocaleString('en')} characters`;
    print(`  ${name.padEnd(5)} ${years.join('-')}: ${counted}`);
  }
}

async function trainAll(
  configs: readonly ResolvedConfig[],
  resume: boolean,
  signal: AbortSignal,
): Promise<boolean> {
  for (const config of configs) {
    const done = resume ? (RunFolder.of(config).checkpoints.list().at(-1)?.step ?? 0) : 0;
    if (done >= config.training.steps) continue;
    print('');
    const { finished } = await runTraining(config, {
      resume: done > 0 ? 'last' : undefined,
      overwrite: true,
      signal,
      sinks: [new ProgressSink()],
      atEnd: async ({ model, vocabulary, device, step }, write) => {
        manualSeed(config.seed);
        const text = await generate(model, vocabulary, {
          prompt: '\n',
          length: 600,
          temperature: 0.8,
          device,
        });
        write({ kind: 'text', step, tag: 'sample', text });
      },
    });
    if (!finished) return false;
  }
  return true;
}

async function report(configs: readonly ResolvedConfig[]): Promise<void> {
  const runs = configs.map((config) => readRun(RunFolder.of(config).path));
  print(`\n${resultTable(runs)}`);
  const [withExperts, without] = runs.map((run) => finalLoss(run, 'valid'));
  if (withExperts !== undefined && without !== undefined) {
    const difference = without - withExperts;
    const words = difference >= 0 ? 'fewer' : 'more';
    print(
      `\nOn the validation years the MoE model needs ${Math.abs(difference).toFixed(3)} bits per character ${words} ` +
        'than the dense one.',
    );
  }
  const sample = runs[0]?.texts.at(-1)?.text;
  if (sample !== undefined) print(`\nA sample of the MoE model:\n\n${sample}\n`);
  const files = await writeReport(
    runs,
    join(runsFolder, 'sotu'),
    'State of the Union: MoE and dense Transformer-XL',
  );
  print(files.map((file) => `wrote ${shown(file)}`).join('\n'));
}

try {
  process.exitCode = await main();
} catch (error) {
  process.stderr.write(describeError(error));
  process.exitCode = 1;
}
