import { environmentError } from './variables.js';

/**
 * The first host of a Slurm node list: `n1` of `n1,n2`, `gpu03` of `gpu[03-06,9]`, `a1-ib` of `a[1-2]-ib`.
 */
export function firstHost(nodeList: string): string {
  const [, first] = /^((?:[^,[\]]|\[[^\]]*\])+)/.exec(nodeList) ?? [];
  if (first === undefined) throw environmentError(`The Slurm node list '${nodeList}' names no host.`);
  return first.replaceAll(/\[([^\],-]*)[^\]]*\]/g, '$1');
}

/**
 * Tasks on each node of a Slurm step: `4(x2),3` is 4, 4, 3.
 */
export function tasksPerNode(counts: string): number[] {
  return counts.split(',').flatMap((entry) => {
    const [, tasks, nodes] = /^(\d+)(?:\(x(\d+)\))?$/.exec(entry.trim()) ?? [];
    if (tasks === undefined) {
      throw environmentError(`SLURM_STEP_TASKS_PER_NODE is '${counts}', expected something like '4(x2),3'.`);
    }
    return new Array<number>(Number(nodes ?? 1)).fill(Number(tasks));
  });
}
