import { isMegatronFolder, mergeFastMoECheckpoint } from '@fmoe/layers';
import { describeCheckpoint, mergeCheckpoint, RunFolder, splitCheckpoint } from '@fmoe/models/training';
import type { Command } from 'commander';
import { type Context, print } from '../context.js';
import { integer } from '../options.js';

/** `fmoe checkpoint`: looks into checkpoints, and turns those of many ranks into one and back. */
export function addCheckpoint(program: Command, context: Context): void {
  const group = program
    .command('checkpoint')
    .description('look into a checkpoint, merge the files of many ranks, or split them');
  const add = (name: string, description: string): Command =>
    group
      .command(name)
      .description(description)
      .argument('<checkpoint>', 'its folder, or that of a run for the last one');
  add('inspect', 'show what a checkpoint holds').action((folder: string) => inspect(find(folder), context));
  add(
    'merge',
    'write the checkpoint of many ranks as one process would, or that of FastMoE for Megatron-LM as one file',
  )
    .argument('<output>', 'folder to make; of FastMoE the file, .safetensors or .pt')
    .option('--part <name>', 'of FastMoE: which of several parts, such as mp_rank_01')
    .action((folder: string, output: string, options: { part?: string }) => {
      if (isMegatronFolder(folder)) mergeFastMoECheckpoint(folder, output, options);
      else mergeCheckpoint(find(folder), output);
      print(context, `Merged into ${output}`);
    });
  add('split', 'write a checkpoint as many ranks would')
    .argument('<output>', 'folder to make')
    .requiredOption('--ranks <number>', 'how many', integer(1))
    .action((folder: string, output: string, { ranks }: { ranks: number }) => {
      splitCheckpoint(find(folder), output, ranks);
      print(context, `Split for ${ranks} ranks into ${output}`);
    });
}

/** A checkpoint's folder: the one given, or the last one of a run. */
function find(folder: string): string {
  const run = new RunFolder(folder);
  return run.isUsed ? run.checkpoints.find('last') : folder;
}

function inspect(folder: string, context: Context): void {
  const { step, ranks, files, tensors } = describeCheckpoint(folder);
  const written = ranks === 1 ? 'one process' : `${ranks} ranks`;
  print(context, `${folder}: step ${step}, written by ${written}\n`);
  for (const [name, { bytes }] of Object.entries(files))
    print(context, `${`${bytes}`.padStart(14)} bytes  ${name}`);
  print(context, '');
  const width = Math.max(...tensors.map(({ name }) => name.length));
  for (const { name, shape, dtype, experts } of tensors) {
    const each = experts === undefined ? '' : ` for each of ${experts} experts`;
    print(context, `${name.padEnd(width)}  ${dtype.padEnd(4)}  [${shape.join(', ')}]${each}`);
  }
}
