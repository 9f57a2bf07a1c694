import { FMoETransformerMLP } from '@fmoe/layers';
import { gateConformance } from '@fmoe/layers/testing';
import { manualSeed, randn, type Tensor, tidy } from '@fmoe/torch';
import { HashGate } from '@fmoe-examples/hash-gate';
import { beforeEach, describe, expect, it } from 'vitest';

beforeEach(() => {
  manualSeed(1);
});

gateConformance('HashGate', HashGate);
gateConformance('HashGate with one choice of many', HashGate, { numExpert: 64, topK: 1 });

const expertsOf = (gate: HashGate, x: Tensor) => gate.forward(x).topIdx.toArray() as bigint[][];

describe('HashGate', () => {
  it('equals the formula, plane by plane', () => {
    tidy(() => {
      const gate = new HashGate({ dModel: 4, numExpert: 5, topK: 2, planes: 6 });
      const x = randn([30, 4]);
      const [rows, normals] = [x.toArray(), gate.normals.toArray()] as [number[][], number[][]];
      const expected = rows.map((row) => {
        let code = 0n;
        for (let plane = 0; plane < 6; plane++) {
          const side = row.reduce((sum, value, d) => sum + value * normals[d]![plane]!, 0);
          if (side > 0) code += 1n << BigInt(plane);
        }
        const hash = ((code * 2654435761n) % 2n ** 32n) / 2n ** 16n;
        return [hash % 5n, (hash + 1n) % 5n];
      });
      expect(expertsOf(gate, x)).toEqual(expected);
    });
  });

  it('sends near tokens to the same experts, whatever their length', () => {
    tidy(() => {
      const gate = new HashGate({ dModel: 16, numExpert: 8 });
      const x = randn([50, 16]);
      expect(expertsOf(gate, x.mul(3))).toEqual(expertsOf(gate, x));
      const near = expertsOf(gate, x.add(randn([50, 16]).mul(1e-3)));
      const moved = near.filter(
        (experts, token) => String(experts) !== String(expertsOf(gate, x)[token]),
      ).length;
      expect(moved).toBeLessThan(5);
    });
  });

  it('uses all experts for random tokens', () => {
    tidy(() => {
      const gate = new HashGate({ dModel: 16, numExpert: 8, topK: 1 });
      expect(new Set(expertsOf(gate, randn([500, 16])).flat()).size).toBe(8);
    });
  });

  it('is the gate of a layer, and leaves no balance loss', () => {
    tidy(() => {
      const layer = new FMoETransformerMLP({ numExpert: 4, dModel: 8, dHidden: 16, gate: HashGate });
      layer
        .forward(randn([20, 8]))
        .sum()
        .backward();
      expect(layer.gate.parameters()).toEqual([]);
      expect(layer.gate.hasLoss).toBe(false);
      expect(layer.experts.htoh4.weight.grad!.abs().sum().item()).toBeGreaterThan(0);
    });
  });

  it('refuses a number of planes out of range', () => {
    for (const planes of [0, 21, 1.5]) {
      expect(() => new HashGate({ dModel: 4, numExpert: 2, planes })).toThrow(
        expect.objectContaining({ code: 'ERR_ARGUMENT' }),
      );
    }
  });
});
