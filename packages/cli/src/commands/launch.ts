import { existsSync } from 'node:fs';
import { type LaunchBackend, launch } from '@fmoe/comm';
import { cuda } from '@fmoe/torch';
import { type Command, Option } from 'commander';
import type { Context } from '../context.js';
import { integer } from '../options.js';

interface LaunchCommandOptions {
  nprocPerNode: number;
  nnodes: number;
  nodeRank: number;
  masterAddr?: string;
  masterPort?: number;
  joinTimeout?: number;
  backend?: LaunchBackend;
  onlyRank?: number;
}

/** `fmoe launch`: a script, or another of these commands, on many ranks. */
export function addLaunch(program: Command, context: Context): void {
  program
    .command('launch')
    .description('run a script, or a command such as train, on many ranks')
    .argument('<script>', 'a TypeScript or JavaScript file, or a command of fmoe')
    .argument('[args...]', 'what follows it')
    .option('-n, --nproc-per-node <ranks>', 'ranks on each machine', integer(1), 1)
    .option('--nnodes <machines>', 'machines, each with a launcher', integer(1), 1)
    .option('--node-rank <number>', 'number of this machine', integer(0), 0)
    .option('--master-addr <address>', 'address of machine 0')
    .option('--master-port <port>', 'port on machine 0 (default: 29500 for more than one)', integer(1))
    .option(
      '--join-timeout <seconds>',
      'time for the launchers of all machines to meet, over MPI (default: 300)',
      integer(1),
    )
    .addOption(
      new Option('--backend <name>', 'nccl needs a GPU for each rank; chosen by that').choices([
        'mpi',
        'nccl',
      ]),
    )
    .option('--only-rank <rank>', 'show the output of this rank only', integer(0))
    .passThroughOptions()
    .action(async (script: string, args: string[], options: LaunchCommandOptions) => {
      const isCommand = !existsSync(script) && program.commands.some((command) => command.name() === script);
      const result = await launch(
        {
          command: [...thisCommand(), ...(isCommand ? [script] : ['run', script]), ...args],
          processes: options.nprocPerNode,
          nodes: options.nnodes,
          nodeRank: options.nodeRank,
          masterAddr: options.masterAddr,
          masterPort: options.masterPort,
          joinTimeout: options.joinTimeout,
          backend: options.backend ?? (cuda.deviceCount() >= options.nprocPerNode ? 'nccl' : 'mpi'),
          onlyRank: options.onlyRank,
        },
        context,
      );
      context.setExitCode(result.exitCode);
    });
}

/** How this process was started, without its arguments: a loader of TypeScript sources comes along. */
function thisCommand(): string[] {
  return [process.execPath, ...process.execArgv, process.argv[1]!];
}
