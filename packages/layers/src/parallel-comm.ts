import type { nn } from '@fmoe/torch';

/** A parameter that says over which communicator its gradients are synchronised; without a tag it is `'dp'`. */
export interface TaggedParameter extends nn.Parameter {
  dp_comm?: string;
}

/**
 * Tags all parameters of a module with the name of the communicator that synchronises them: `'dp'` over replicas of the
 * model, `'gate'` over all ranks that share a gate, `'moe'`, `'world'`, a name of your own, or `'none'` for parameters that
 * no other rank has.
 */
export function markModuleParallelComm(module: nn.Module, comm: string): void {
  for (const parameter of module.parameters()) (parameter as TaggedParameter).dp_comm = comm;
}
