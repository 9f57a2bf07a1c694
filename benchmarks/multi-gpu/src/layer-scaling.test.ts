import { expect, it } from 'vitest';
import { compareWithOneRank, layerRows } from './layer-scaling.js';
import type { LayerFigures } from './ranks/layer.js';

const shape: LayerFigures['shape'] = {
  name: 'some',
  tokens: 1000,
  dModel: 10,
  dHidden: 100,
  expertsPerRank: 4,
  topK: 2,
  dtype: 'float32',
  steps: 1,
};

function figures(ranks: number[], alone: number[], parts: Record<string, number>[]): LayerFigures {
  return {
    shape,
    routing: 'router',
    milliseconds: { ranks, alone, aloneInSteps: alone },
    parts,
    difference: 0,
  };
}

it('takes the slowest rank of each round, and the median of the rounds', () => {
  const [first, second] = [
    figures([4, 9, 5], [3, 3, 3], [{ 'forward.gate': 1, 'backward.gate': 1, 'forward.wait': 2 }]),
    figures([5, 6, 4], [2, 2, 6], [{ 'forward.gate': 3, 'backward.gate': 1, 'forward.wait': 0 }]),
  ];
  const [row] = layerRows([[first], [second]]);
  // Rounds take 5, 9 and 5 together, and 3, 3 and 6 alone.
  expect(row).toMatchObject({ ranks: 2, milliseconds: 5, aloneMilliseconds: 3, efficiency: 0.6 });
  expect(row!.split).toEqual({ gate: 3, exchange: 0, experts: 0, sync: 0, wait: 1, sum: 4 });
  // 12 · 1000 · 2 · 10 · 100 floating-point operations in 5 ms.
  expect(row!.teraflops).toBeCloseTo(0.0048, 10);
});

it('leaves out what a rank did not get to, and compares with one rank where it can', () => {
  const one = figures([2], [2], [{}]);
  const four = figures([8], [4], [{}]);
  const rows = [...layerRows([[one]]), ...layerRows([[four, four], [four]])];
  expect(rows.map(({ ranks }) => ranks)).toEqual([1, 2]);
  compareWithOneRank(rows);
  expect(rows.map(({ efficiencyAgainstOneRank }) => efficiencyAgainstOneRank)).toEqual([1, 0.25]);
});
