/** Shape letters: T tokens, N all experts, K top-k, W ranks. */
import { topkGate } from '@fmoe/kernels';
import { FmoeError, type Tensor, tensor, zeros, zerosLike } from '@fmoe/torch';
import { checkSize } from '../check.js';
import { checkFraction } from './check-options.js';
import { rankOfExpert } from './rank-of-expert.js';
import { type Choice, LinearGate, type RouterOptions } from './router-gate.js';

/**
 * Which experts are near: the node of every expert and the node of this process; or how many ranks of the gate's group share
 * a node, the experts being where the gate's `placement` says; null experts are on every node.
 */
export type ClusterDescription = { nodeOfExpert: readonly number[]; node: number } | { ranksPerNode: number };

/** Settings of {@link FasterGate}. */
export interface FasterGateOptions extends RouterOptions {
  cluster: ClusterDescription;
  /** Rows that may leave the node, as a share of the number of tokens, in [0, 1]. Default 0.14. */
  outgoingFraction?: number;
}

/**
 * Topology-aware gating of FasterMoE (He et al., PPoPP 2022): top-k in which at most ⌊fraction · T⌋ rows leave
 * the node. Of the choices of experts on other nodes those with the highest logits keep theirs; the other tokens take the
 * best experts of their own node instead. The score is the softmax over the chosen logits.
 *
 * The balance loss, `'gshard'` by default, looks at what the tokens would have chosen without the limit.
 */
export class FasterGate extends LinearGate {
  static override readonly optionNames: readonly string[] = [
    ...super.optionNames,
    'cluster',
    'outgoingFraction',
  ];

  readonly outgoingFraction: number;
  /** `[N]` bool: the experts of other nodes. Not part of the state dict. */
  declare readonly remote: Tensor;

  /** @throws FmoeError `ERR_ARGUMENT` for a cluster that does not fit the experts, or with fewer than K on this node. */
  constructor(options: FasterGateOptions) {
    super(options, 'gshard');
    const owner = this.constructor.name;
    this.outgoingFraction = checkFraction(owner, 'outgoingFraction', options.outgoingFraction ?? 0.14, true);
    const remote = this.remoteExperts(options);
    const local = remote.filter((isRemote) => !isRemote).length;
    if (local < this.topK) {
      throw this.clusterError(`this node has ${local} experts, but a token must find ${this.topK} on it`);
    }
    this.registerBuffer('remote', tensor(remote, { dtype: 'bool' }), { persistent: false });
  }

  private remoteExperts({ cluster, placement }: FasterGateOptions): boolean[] {
    const { numExpert } = this;
    if (typeof cluster !== 'object' || cluster === null) {
      throw this.clusterError('it needs a cluster, { nodeOfExpert, node } or { ranksPerNode }');
    }
    if ('ranksPerNode' in cluster) {
      const ranksPerNode = checkSize(this.constructor.name, 'cluster.ranksPerNode', cluster.ranksPerNode);
      const nodeOf = (rank: number) => Math.floor(rank / ranksPerNode);
      const node = nodeOf(this.group?.rank ?? 0);
      return rankOfExpert(this, placement).map((rank) => rank !== null && nodeOf(rank) !== node);
    }
    const { nodeOfExpert, node } = cluster;
    if (!Array.isArray(nodeOfExpert) || nodeOfExpert.length !== numExpert) {
      const got = Array.isArray(nodeOfExpert) ? `${nodeOfExpert.length} entries` : 'none';
      throw this.clusterError(`nodeOfExpert must have an entry for each of ${numExpert} experts, got ${got}`);
    }
    return nodeOfExpert.map((nodeOf) => nodeOf !== node);
  }

  private clusterError(problem: string): FmoeError {
    const owner = this.constructor.name;
    return new FmoeError('ERR_ARGUMENT', `${owner}: ${problem}.`, { op: owner, argument: 'cluster' });
  }

  protected override choose(logits: Tensor): Choice {
    const { topK, remote, outgoingFraction } = this;
    const wanted = topkGate(logits, topK);
    const { topIdx } = wanted;
    const leaves = remote.indexSelect(0, topIdx.view([-1]));
    const worth = logits
      .detach()
      .gather(1, topIdx)
      .view([-1])
      .maskedFill(leaves.logicalNot(), Number.NEGATIVE_INFINITY);
    const first = worth
      .argsort({ stable: true, dim: 0, descending: true })
      .narrow(0, 0, Math.floor(topIdx.shape[0]! * outgoingFraction));
    const may = zeros(worth.shape, { dtype: 'bool', device: logits.device })
      .scatter(0, first, 1)
      .logicalAnd(leaves);
    const open = zerosLike(logits, { dtype: 'bool' })
      .scatter(1, topIdx, may.view(topIdx.shape))
      .logicalOr(remote.logicalNot());
    return { ...topkGate(logits.maskedFill(open.logicalNot(), Number.NEGATIVE_INFINITY), topK), wanted };
  }
}
