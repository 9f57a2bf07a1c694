import { Writable } from 'node:stream';
import { readRendezvous } from '@fmoe/comm';
import { absolutePlugin, ProgressSink, quotedLoss, RunFolder, runTraining } from '@fmoe/models/training';
import type { Command } from 'commander';
import { type Context, print } from '../context.js';
import { exitCodeOf, interruptible } from '../interrupt.js';
import { loadConfig } from '../load-config.js';
import { collect } from '../options.js';
import { summarizeConfig } from '../summarize-config.js';

interface TrainOptions {
  config: string;
  set: string[];
  gate?: string;
  expert?: string;
  resume?: string | true;
  overwrite?: true;
}

/** `fmoe train`: trains what a configuration file describes. */
export function addTrain(program: Command, context: Context): void {
  program
    .command('train')
    .description('train a model; Ctrl-C saves a checkpoint and stops')
    .requiredOption('-c, --config <file>', 'configuration: a TypeScript, JavaScript or JSON file')
    .option('-s, --set <key=value>', 'replace a value of the configuration; may be repeated', collect, [])
    .option('--gate <name>', 'gate of the experts: a name, package#export, or ./file.js#export')
    .option('--expert <name>', "an expert's class: package#export, or ./file.js#export")
    .option('-r, --resume [checkpoint]', 'go on from last (the default), best, a step, or a folder')
    .option('--overwrite', 'replace a run of the same name')
    .action((options: TrainOptions) => train(options, context));
}

/** The assignments that the options for plug-ins stand for; files are looked for from the current folder. */
function plugins({ gate, expert }: TrainOptions): string[] {
  const assign = (key: string, name: string | undefined) =>
    name === undefined ? [] : [`model.moe.${key}=${absolutePlugin(name, process.cwd())}`];
  return [...assign('gate', gate), ...assign('expert', expert)];
}

async function train(options: TrainOptions, command: Context): Promise<void> {
  // Of ranks that train together one speaks for all.
  const context = readRendezvous().rank === 0 ? command : silent(command);
  const config = await loadConfig(options.config, [...options.set, ...plugins(options)]);
  const { path } = RunFolder.of(config);
  print(context, `${summarizeConfig(config)}\nrun       ${path}`);
  const resume = options.resume === true ? 'last' : options.resume;
  const { result, stoppedBy } = await interruptible(
    (signal) =>
      runTraining(config, {
        resume,
        overwrite: options.overwrite,
        signal,
        sinks: [new ProgressSink({ stream: context.out })],
      }),
    () => context.error.write('\nStopping: saving a checkpoint. Press Ctrl-C again to stop at once.\n'),
  );
  if (!result.finished) {
    print(context, `Stopped after step ${result.step}. Go on with: fmoe train ${resumeArguments(options)}`);
    // Without a signal of its own, this rank stopped because another one had one.
    context.setExitCode(exitCodeOf(stoppedBy ?? 'SIGTERM'));
    return;
  }
  const { unit } = new RunFolder(path).readVocabulary();
  for (const split of ['valid', 'test'] as const) {
    const evaluation = result[split];
    if (evaluation === undefined) continue;
    const { name, value } = quotedLoss(evaluation.loss, unit);
    print(context, `${split.padEnd(5)} ${name} ${value.toFixed(3)}`);
  }
  print(context, `${result.step} steps in ${result.seconds.toFixed(1)} s; plot with: fmoe plot ${path}`);
}

/** The arguments that go on with a run, as a shell reads them. */
function resumeArguments({ config, set, gate, expert }: TrainOptions): string {
  const given = { '--gate': gate, '--expert': expert };
  const plugins = Object.entries(given).flatMap(([name, value]) =>
    value === undefined ? [] : [name, value],
  );
  const words = ['--config', config, ...set.flatMap((one) => ['--set', one]), ...plugins, '--resume'];
  return words
    .map((word) => (/^[\w./:=@#,+-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`))
    .join(' ');
}

function silent(context: Context): Context {
  const nowhere = new Writable({ write: (_chunk, _encoding, done) => done() });
  return { ...context, out: nowhere, error: nowhere };
}
