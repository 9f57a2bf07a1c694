import { closeSync, openSync, realpathSync, writeFileSync } from 'node:fs';
import type { Socket } from 'node:net';
import { dirname, join } from 'node:path';
import { FmoeError } from '@fmoe/torch';
import type { LaunchPlan } from './launch-plan.js';
import { isExecutable, type Mpirun } from './mpirun.js';
import { makePipes, openPipe } from './named-pipes.js';

/*
 * On another machine mpirun starts a daemon of its own, which starts the ranks there: through ssh, or a program that takes ssh's
 * place. Ours hands the daemon's arguments to the launcher, which has the launcher of that machine start it.
 */

const daemonNames = { openmpi: 'prted', mpich: 'hydra_pmi_proxy' } as const;

/** No names that anybody looks up: only the agent sees them. */
const nodeName = (node: number): string => `fmoe-node-${node}`;

/**
 * In place of ssh: options, a machine and a command for its shell. It stays as long as the daemon, as ssh does. What stands before the
 * daemon's arguments does not matter, since each launcher knows its own daemon.
 */
const agentScript = (daemon: string): string => `#!/bin/sh
while [ "\${1#-}" != "$1" ]; do shift; done
pipes="\${0%agent}"
exec 3<"\${pipes}end-$1" 4>"\${pipes}start-$1"
shift
command="$*"
eval "set -- \${command#*${daemon}[\\" ]}"
printf '%s\\0' "$@" >&4
exec 4>&- cat <&3 >/dev/null 2>&1
`;

/** The program of an MPI that starts ranks on another machine, whichever mpirun asks for it. */
export function findDaemon({ path, family, major }: Mpirun): string {
  if (family === 'openmpi' && major < 5) {
    throw new FmoeError(
      'ERR_SETUP',
      `${path} is of OpenMPI ${major}; a launcher on each machine needs OpenMPI 5 or MPICH. With ssh between the machines, start mpirun yourself.`,
    );
  }
  const name = daemonNames[family];
  const found = [path, realpathSync(path)].map((file) => join(dirname(file), name)).find(isExecutable);
  if (found !== undefined) return found;
  throw new FmoeError(
    'ERR_SETUP',
    `There is no ${name} beside ${path}, by which it starts ranks on another machine.`,
  );
}

/** The agent of one run. */
export interface MpiAgent {
  /** Arguments of mpirun that start the ranks of all machines, before the command. */
  args: string[];
  close(): void;
}

/**
 * Puts the agent into the launcher's folder.
 *
 * @param run has the launcher of another machine run the daemon with these arguments, until it ends
 */
export function openAgent(
  { family }: Mpirun,
  { processes, nodes }: LaunchPlan,
  folder: string,
  ownAddress: string,
  run: (node: number, args: string[]) => Promise<void>,
): MpiAgent {
  const path = join(folder, 'agent');
  writeFileSync(path, agentScript(daemonNames[family]), { mode: 0o700 });
  const others = Array.from({ length: nodes - 1 }, (_, index) => index + 1);
  const calls = others.map((node) => new Call(folder, nodeName(node), (args) => run(node, args)));
  const hosts = (first: string): string =>
    [first, ...others.map(nodeName)].map((name) => `${name}:${processes}`).join(',');
  return {
    args:
      family === 'openmpi'
        ? [
            ...['--host', hosts('localhost'), '--map-by', 'slot'],
            ...['--prtemca', 'plm_ssh_agent', path, '--prtemca', 'plm_ssh_no_tree_spawn', '1'],
          ]
        : // Each machine's ranks have the environment of its launcher, as those of OpenMPI have.
          [
            ...['-genvnone', '-launcher', 'ssh', '-launcher-exec', path],
            ...['-localhost', ownAddress, '-hosts', hosts(ownAddress)],
          ],
    close() {
      for (const call of calls) call.close();
    },
  };
}

/** The agent's call for one machine: it writes the arguments to one pipe, and stays until the other one is closed here. */
class Call {
  readonly #start: Socket;
  #end: number | undefined;

  constructor(folder: string, name: string, run: (args: string[]) => Promise<void>) {
    const [start, end] = [join(folder, `start-${name}`), join(folder, `end-${name}`)] as const;
    makePipes([start, end]);
    this.#end = openSync(end, 'r+');
    this.#start = openPipe(start);
    let text = '';
    this.#start
      .setEncoding('utf8')
      .on('error', () => {})
      .on('data', (data: string) => {
        text += data;
      })
      .on('end', () => {
        // In the background it would be nobody's child.
        const args = text.split('\0').filter((arg) => arg !== '' && arg !== '--daemonize');
        run(args).then(() => this.close());
      });
  }

  close(): void {
    this.#start.destroy();
    if (this.#end !== undefined) closeSync(this.#end);
    this.#end = undefined;
  }
}
