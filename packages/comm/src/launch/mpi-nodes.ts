import { networkInterfaces } from 'node:os';
import { joinNodes } from './join-nodes.js';
import type { LaunchPlan } from './launch-plan.js';
import type { LauncherPresence } from './launcher-presence.js';
import { findDaemon, openAgent } from './mpi-daemon.js';
import { type Mpirun, mpirunArguments } from './mpirun.js';
import type { Nodes } from './nodes.js';
import type { RankEvents, Ranks } from './ranks.js';
import { rankCommand, startMpiRanks } from './start-mpi-ranks.js';

/**
 * Meets the launchers of all machines of a run over MPI.
 *
 * @throws FmoeError ERR_SETUP when this machine's MPI cannot do it, and what {@link joinNodes} throws
 */
export function joinMpiNodes(plan: LaunchPlan, mpirun: Mpirun): Promise<Nodes> {
  findDaemon(mpirun);
  return joinNodes(
    {
      node: plan.nodeRank,
      nodes: plan.nodes,
      processes: plan.processes,
      mpi: `${mpirun.family} ${mpirun.version}`,
    },
    { host: plan.masterAddr, port: plan.masterPort, seconds: plan.joinTimeout },
  );
}

/** Starts the ranks of this machine as a part of the run: with mpirun on machine 0, with its daemon on the others. */
export async function startNodeRanks(
  plan: LaunchPlan,
  presence: LauncherPresence,
  events: RankEvents,
  mpirun: Mpirun,
  nodes: Nodes,
): Promise<Ranks | undefined> {
  const rankEnv = networkOf(plan, nodes);
  if (plan.nodeRank !== 0) {
    const args = await nodes.daemonArguments();
    return (
      args && startMpiRanks(plan, presence, events, { mpirun, program: findDaemon(mpirun), args, rankEnv })
    );
  }
  const agent = openAgent(mpirun, plan, presence.folder, nodes.address ?? plan.masterAddr, (node, args) =>
    nodes.runDaemon(node, args),
  );
  const args = [...mpirunArguments(mpirun, plan.worldSize, agent.args), ...rankCommand];
  const ranks = startMpiRanks(plan, presence, events, { mpirun, program: mpirun.path, args, rankEnv });
  return { ...ranks, done: ranks.done.finally(() => agent.close()) };
}

/**
 * The network by which the machines reach each other, where the user names none: others may exist on each machine by itself, such as
 * those of containers, and OpenMPI would try them.
 */
function networkOf({ env }: LaunchPlan, { address }: Nodes): NodeJS.ProcessEnv {
  const isNamed = Object.keys(env).some((name) => name.startsWith('OMPI_MCA_btl_tcp_if_'));
  const network = Object.entries(networkInterfaces()).find(([, addresses]) =>
    addresses?.some((one) => one.address === address && !one.internal),
  );
  return isNamed || network === undefined ? {} : { OMPI_MCA_btl_tcp_if_include: network[0] };
}
