import { doctor, formatDoctor } from '@fmoe/torch/setup';
import type { Command } from 'commander';
import { type Context, print } from '../context.js';

/** `fmoe doctor`: what this machine has of what fmoe needs. */
export function addDoctor(program: Command, context: Context): void {
  program
    .command('doctor')
    .description('show what was found on this machine, with a remedy for each gap')
    .action(() => {
      const rows = doctor();
      print(context, formatDoctor(rows));
      if (rows.some(({ status }) => status === 'missing')) context.setExitCode(1);
    });
}
