/** Shape letters: T tokens, D model width, N all experts, K top-k. */
import { Placement } from '@fmoe/comm';
import { manualSeed } from '@fmoe/torch';
import { describeEachDevice } from '@fmoe/torch/testing';
import { beforeEach, expect, it } from 'vitest';
import {
  expectChoice,
  expectGradients,
  expectLosses,
  forwardTokens,
  integers,
  plainLogits,
  prepare,
  tokens,
} from '../../test/gate-checks.js';
import { runRanks } from '../../test/lockstep.js';
import { evenness, topK as plainTopK, softmax, topologyAware } from '../../test/plain-gates.js';
import { FMoETransformerMLP } from '../fmoe-transformer-mlp.js';
import { FasterGate, type FasterGateOptions } from './faster-gate.js';

beforeEach(() => {
  manualSeed(22);
});

const nodeOfExpert = [0, 1, 0, 1, 2, 0, 0, 2];
const sizes = { dModel: 5, numExpert: 8, cluster: { nodeOfExpert, node: 0 } };

describeEachDevice('FasterGate', (device) => {
  for (const topK of [1, 2, 3, 4]) {
    it.each([0, 0.14, 0.5, 1])(
      `lets ⌊fraction · T⌋ rows leave the node, the best first: k ${topK}, fraction %s`,
      (outgoingFraction) => {
        const gate = prepare(new FasterGate({ ...sizes, topK, outgoingFraction }), device);
        const x = tokens(22, 5, device);
        const logits = plainLogits(gate, x);
        const remote = nodeOfExpert.map((node) => node !== 0);
        const expected = topologyAware(logits, topK, remote, Math.floor(22 * outgoingFraction));
        const route = forwardTokens(gate, x);
        expectChoice(route, expected);
        const leaving = integers(route.topIdx)
          .flat()
          .filter((e) => remote[e]);
        expect(leaving.length).toBeLessThanOrEqual(22 * outgoingFraction);
        // The loss looks at what the tokens wanted.
        const wanted = plainTopK(logits, topK).topIdx.map((row) => row[0]!);
        expectLosses(gate, { balance: evenness(wanted, logits.map(softmax)) });
        expectGradients(gate, tokens(5, 5, device));
        expectChoice(forwardTokens(gate.eval(), x), expected);
        expect(gate.hasLoss).toBe(false);
      },
    );
  }

  it('is plain top-k where all experts are near', () => {
    const gate = prepare(new FasterGate({ ...sizes, cluster: { ranksPerNode: 8 }, topK: 2 }), device);
    const x = tokens(10, 5, device);
    expectChoice(forwardTokens(gate, x), plainTopK(plainLogits(gate, x), 2));
  });

  it('finds the nodes of experts that are spread over the ranks of a group', () => {
    const cluster = { ranksPerNode: 2 };
    const remote = runRanks(4, (group) =>
      new FasterGate({ ...sizes, topK: 2, cluster, group }).remote.toArray(),
    );
    const second = [true, true, true, true, false, false, false, false];
    expect(remote[3]).toEqual(second);
    expect(remote[1]).toEqual(second.map((isRemote) => !isRemote));
  });

  it.each([
    // Ten experts on four ranks: the first two have one more.
    ['in order', undefined, 0, [0, 0, 0, 1, 1, 1, 2, 2, 3, 3]],
    ['in order, with null experts', undefined, 3, [0, 0, 0, 1, 1, 1, 2, 2, 3, 3]],
    ['as placed, with null experts', [3, 0, 1, 2, 2, 1, 0, 3, 3, 2], 2, [3, 0, 1, 2, 2, 1, 0, 3, 3, 2]],
  ])('finds the experts of a layer %s', (_, ranks, numZeroExpert, rankOfExpert) => {
    runRanks(4, (moeGroup) => {
      const layer = new FMoETransformerMLP({
        numExpert: 10,
        numZeroExpert,
        dModel: 5,
        dHidden: 2,
        moeGroup,
        ...(ranks && { placement: Placement.ofRanks(ranks, 4) }),
        gate: (options) =>
          new FasterGate({ ...options, cluster: { ranksPerNode: 2 }, outgoingFraction: 0.2 }),
      });
      const isSecond = moeGroup.rank >= 2;
      const remote = [
        ...rankOfExpert.map((rank) => rank >= 2 !== isSecond),
        ...new Array<boolean>(numZeroExpert).fill(false),
      ];
      const gate = prepare(layer.gate as FasterGate, device);
      expect(gate.remote.cpu().toArray()).toEqual(remote);
      const x = tokens(20, 5, device);
      expectChoice(forwardTokens(gate, x), topologyAware(plainLogits(gate, x), 2, remote, 4));
    });
  });

  it('refuses a placement for other ranks', () => {
    const placement = Placement.even(8, 2);
    expect(() => new FasterGate({ ...sizes, cluster: { ranksPerNode: 1 }, placement })).toThrow(
      expect.objectContaining({
        code: 'ERR_ARGUMENT',
        message: expect.stringMatching(/8 experts on 2 ranks.*a group of 1/),
      }),
    );
  });

  it('takes no tokens', () => {
    const gate = prepare(new FasterGate({ ...sizes, topK: 2 }), device);
    expect(forwardTokens(gate, tokens(0, 5, device)).topIdx.shape).toEqual([0, 2]);
  });

  it.each<[string, Partial<FasterGateOptions>, RegExp]>([
    [
      'too few experts nearby',
      { cluster: { nodeOfExpert, node: 2 }, topK: 3 },
      /this node has 2 experts.*find 3/,
    ],
    ['nodes of other experts', { cluster: { nodeOfExpert: [0, 0], node: 0 } }, /8 experts, got 2 entries/],
    ['no description', { cluster: undefined as never }, /it needs a cluster/],
    ['an empty description', { cluster: {} as never }, /8 experts, got none/],
    ['no ranks', { cluster: { ranksPerNode: 0 } }, /cluster.ranksPerNode must be an integer/],
    ['more than everything', { outgoingFraction: 1.1 }, /outgoingFraction must be in \[0, 1\]/],
  ])('refuses %s', (_, options, message) => {
    expect(() => new FasterGate({ ...sizes, ...options })).toThrow(
      expect.objectContaining({
        code: 'ERR_ARGUMENT',
        message: expect.stringMatching(message),
        op: 'FasterGate',
      }),
    );
  });
});
