import { readRun, writeReport } from '@fmoe/models/report';
import type { Command } from 'commander';
import { type Context, print } from '../context.js';

/** `fmoe plot`: a report of one or more runs. */
export function addPlot(program: Command, context: Context): void {
  program
    .command('plot')
    .description('write report.html with loss curves and expert load, and the pictures as SVG and PNG')
    .argument('<runs...>', 'folders of runs; several are compared')
    .option('-o, --output <folder>', 'where to write; the first run when left out')
    .option('--title <text>', 'title of the report')
    .action(async (runs: string[], options: { output?: string; title?: string }) => {
      const paths = await writeReport(runs.map(readRun), options.output ?? runs[0]!, options.title);
      for (const path of paths) print(context, path);
    });
}
