/** Every gate against its formula over random shapes. Shape letters: T tokens, D model width, N all experts, K top-k. */
import { manualSeed, type Tensor, tidy } from '@fmoe/torch';
import { describeEachDevice } from '@fmoe/torch/testing';
import { expect, it } from 'vitest';
import {
  cellsOf,
  expectCells,
  expectChoice,
  forwardTokens,
  integers,
  plainLogits,
  prepare,
  tokens,
} from '../../test/gate-checks.js';
import {
  bestGroups,
  expertChoice,
  type Matrix,
  type PlainCells,
  type PlainChoice,
  prune,
  randomBelow,
  range,
  scoredTopK,
  swipe,
  tokenRounding,
  topK,
  topologyAware,
} from '../../test/plain-gates.js';
import {
  DCGate,
  ExpertChoiceGate,
  FasterGate,
  GroupLimitedGate,
  GShardGate,
  type LinearGate,
  NaiveGate,
  SwipeGate,
  SwitchGate,
  TokenRoundingGate,
  TopKGate,
} from './index.js';

interface Sizes {
  dModel: number;
  numExpert: number;
  topK: number;
}
interface Case {
  gate: LinearGate;
  expected(logits: Matrix): PlainChoice | PlainCells;
}

const unlimited = Number.POSITIVE_INFINITY;
const pruned = (choice: PlainChoice, budget: number): PlainChoice => ({
  ...choice,
  topIdx: prune(choice.topIdx, () => budget),
});

/** A gate and its formula, from random sizes and a source of random numbers. */
const cases: Record<string, (sizes: Sizes, random: (bound: number) => number) => Case> = {
  NaiveGate: (sizes, random) => {
    const factor = random(2) === 0 ? null : (1 + random(15)) / 10;
    const slots = (t: number) =>
      factor === null ? unlimited : Math.ceil((factor * t * sizes.topK) / sizes.numExpert);
    return {
      gate: new NaiveGate({ ...sizes, capacity: factor }),
      expected: (logits) => pruned(topK(logits, sizes.topK), slots(logits.length)),
    };
  },
  TopKGate: (sizes, random) => {
    const scoreFunction = (['softmax', 'softmaxChosen', 'sigmoid'] as const)[random(3)]!;
    const normalize = random(2) === 0;
    return {
      gate: new TopKGate({ ...sizes, scoreFunction, normalize }),
      expected: (logits) => scoredTopK(logits, sizes.topK, { scoreFunction, normalize }),
    };
  },
  GShardGate: (sizes) => {
    const numExpert = sizes.numExpert + 1;
    return {
      gate: new GShardGate({ ...sizes, topK: 2, numExpert, capacity: 0.5, randomRouting: false }),
      expected: (logits) =>
        pruned(topK(logits, 2), Math.max(1, Math.floor((Math.ceil(0.5 * logits.length) * 2) / numExpert))),
    };
  },
  DCGate: (sizes) => ({
    gate: new DCGate({
      ...sizes,
      topK: 2,
      numExpert: sizes.numExpert + 1,
      capacity: 0.3,
      randomRouting: false,
    }),
    expected: (logits) => pruned(topK(logits, 2), Math.ceil(0.3 * logits.length)),
  }),
  SwitchGate: (sizes) => ({
    gate: new SwitchGate({ ...sizes, topK: 1, capacity: 0.8, jitter: 0 }),
    expected: (logits) =>
      pruned(
        scoredTopK(logits, 1, { scoreFunction: 'softmax', normalize: false }),
        Math.ceil((0.8 * logits.length) / sizes.numExpert),
      ),
  }),
  SwipeGate: (sizes, random) => {
    const bins = 1 + random(sizes.numExpert);
    const binOfExpert = range(sizes.numExpert).map((e) => e % bins);
    return {
      gate: new SwipeGate({ ...sizes, binOfExpert }),
      expected: (logits) => (bins === 1 ? topK(logits, sizes.topK) : swipe(logits, sizes.topK, binOfExpert)),
    };
  },
  FasterGate: (sizes, random) => {
    const near = sizes.topK + random(sizes.numExpert - sizes.topK + 1);
    const nodeOfExpert = range(sizes.numExpert).map((e) => (e < near ? 3 : 1 + (e % 2)));
    const outgoingFraction = random(11) / 10;
    return {
      gate: new FasterGate({ ...sizes, cluster: { nodeOfExpert, node: 3 }, outgoingFraction }),
      expected: (logits) =>
        topologyAware(
          logits,
          sizes.topK,
          nodeOfExpert.map((node) => node !== 3),
          Math.floor(logits.length * outgoingFraction),
        ),
    };
  },
  GroupLimitedGate: (sizes, random) => {
    const numGroups = 1 + random(3);
    const numExpert = sizes.numExpert * numGroups;
    const least = Math.ceil(sizes.topK / sizes.numExpert);
    const groupTopK = least + random(numGroups - least + 1);
    const scoreFunction = (['softmax', 'sigmoid'] as const)[random(2)]!;
    const settings = { scoreFunction, normalize: true };
    return {
      gate: new GroupLimitedGate({ ...sizes, ...settings, numExpert, numGroups, groupTopK }),
      expected: (logits) => {
        const best = scoreFunction === 'sigmoid' ? 2 : 1;
        const allowed = bestGroups(logits, { ...settings, numGroups, groupTopK, best });
        return scoredTopK(logits, sizes.topK, { ...settings, allowed });
      },
    };
  },
  ExpertChoiceGate: (sizes, random) => {
    const capacity = (1 + random(20)) / 10;
    return {
      gate: new ExpertChoiceGate({ ...sizes, capacity }),
      expected: (logits) => {
        const wanted = Math.ceil((capacity * logits.length * sizes.topK) / sizes.numExpert);
        return expertChoice(logits, Math.min(logits.length, wanted));
      },
    };
  },
  TokenRoundingGate: (sizes, random) => {
    const tileSize = 1 + random(5);
    const settings = { scoreFunction: 'softmax', normalize: true } as const;
    return {
      gate: new TokenRoundingGate({ ...sizes, ...settings, tileSize }),
      expected: (logits) =>
        tokenRounding(logits, sizes.topK, settings, tileSize, (tiles) => Math.floor(tiles + 0.5)),
    };
  },
};

describeEachDevice('gates of random shapes', (device) => {
  it.each(Object.keys(cases))('%s', (name) => {
    const random = randomBelow(name.length);
    for (let round = 0; round < 200; round++) {
      tidy(() => {
        manualSeed(round);
        const numExpert = 1 + random(7);
        const sizes = { dModel: 1 + random(6), numExpert, topK: 1 + random(Math.min(4, numExpert)) };
        const { gate, expected } = cases[name]!(sizes, random);
        prepare(gate, device);
        const count = 1 + random(30);
        const x = tokens(count, sizes.dModel, device);
        check(gate, x, expected(plainLogits(gate, x)));
      });
    }
  });

  function check(gate: LinearGate, x: Tensor, expected: PlainChoice | PlainCells): void {
    if (Array.isArray(expected)) {
      expectCells(cellsOf(gate.forward(x), x.shape[0]!, gate.numExpert), expected);
      return;
    }
    const route = forwardTokens(gate, x);
    expectChoice(route, expected);
    for (const row of integers(route.topIdx)) {
      const kept = row.filter((e) => e >= 0);
      expect(new Set(kept).size).toBe(kept.length);
    }
  }
});
