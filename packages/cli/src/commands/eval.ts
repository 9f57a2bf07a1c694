import { loadCorpus, type SplitName, splitNames } from '@fmoe/models/data';
import { evaluate, loadRun, quotedLoss, RunFolder } from '@fmoe/models/training';
import { type Command, Option } from 'commander';
import { type Context, print } from '../context.js';
import { exitCodeOf, interruptible } from '../interrupt.js';
import { integer } from '../options.js';

interface EvalOptions {
  split: SplitName;
  checkpoint: string;
  device?: string;
  batchSize?: number;
  tgtLen?: number;
  memLen?: number;
}

/** `fmoe eval`: the loss of a run's model on a part of its corpus. */
export function addEval(program: Command, context: Context): void {
  program
    .command('eval')
    .description("evaluate a run's model on its own data")
    .argument('<run>', 'folder of the run')
    .addOption(new Option('--split <part>', 'part of the corpus').choices(splitNames).default('test'))
    .option('--checkpoint <which>', 'last, best, a step, or a folder', 'last')
    .option('--device <device>', 'cpu, cuda or cuda:1; as in the run when left out')
    .option('--batch-size <columns>', 'columns of the text', integer(1))
    .option('--tgt-len <tokens>', 'tokens of a segment', integer(1))
    .option('--mem-len <tokens>', 'tokens of memory', integer(0))
    .action((run: string, options: EvalOptions) => evaluateRun(run, options, context));
}

async function evaluateRun(folder: string, options: EvalOptions, context: Context): Promise<void> {
  const { config, vocabulary, model, device, step } = await loadRun(folder, options);
  const corpus = loadCorpus(config.data);
  new RunFolder(folder).checkVocabulary(corpus.vocabulary);
  const tgtLen = options.tgtLen ?? config.evaluation.tgtLen ?? config.training.tgtLen;
  const memLen =
    options.memLen ?? (model.memLen && Math.max(0, model.memLen + config.training.tgtLen - tgtLen));
  const batchSize = options.batchSize ?? config.evaluation.batchSize;
  const { result, stoppedBy } = await interruptible(
    (signal) => evaluate(model, corpus.splits[options.split], { batchSize, tgtLen, memLen, device, signal }),
    () => {},
  );
  if (result === undefined) {
    context.setExitCode(exitCodeOf(stoppedBy ?? 'SIGINT'));
    return;
  }
  const { name, value } = quotedLoss(result.loss, vocabulary.unit);
  print(
    context,
    `${config.name} at step ${step}, ${options.split}: ${name} ${value.toFixed(4)}, loss ${result.loss.toFixed(4)} nats ` +
      `over ${result.tokens} tokens (segment ${tgtLen}, memory ${memLen})`,
  );
}
