import type { ProcessGroup } from '@fmoe/comm';
import { expertLayout } from '@fmoe/layers';
import { manualSeed, nn, type Tensor } from '@fmoe/torch';
import { describe, expect, it } from 'vitest';
import { TransformerXL } from './model.js';
import type { MoEConfig } from './moe-config.js';

class Expert extends nn.Module {
  readonly up: nn.Linear;
  readonly down: nn.Linear;
  constructor(dModel: number) {
    super();
    this.up = new nn.Linear(dModel, 5);
    this.down = new nn.Linear(5, dModel);
  }
  override forward(rows: Tensor): Tensor {
    return this.down.call(this.up.call(rows).relu());
  }
}

function make(moe: MoEConfig): TransformerXL {
  manualSeed(3);
  return new TransformerXL({ nToken: 9, nLayer: 2, nHead: 2, dModel: 8, dInner: 6, moe });
}

describe('initial weights', () => {
  it.each([
    ['fused experts', {}],
    ['expert modules', { expert: Expert }],
  ])('of %s are those of one process, whichever rank has them', (_, kind) => {
    const alone = make({ numExpert: 5, ...kind });
    const all = new Map<string, Tensor>(alone.namedParameters());
    const seen = new Set<string>();
    for (const rank of [0, 1]) {
      // A model asks its group for no more than this before it runs.
      const moeGroup = { rank, size: 2, members: [0, 1] } as unknown as ProcessGroup;
      const model = make({ numExpert: 5, ...kind, moeGroup });
      const layout = expertLayout(model);
      for (const [name, parameter] of model.namedParameters()) {
        const place = layout.get(name);
        const expected = all.get(place?.name ?? name)!.toArray() as unknown[];
        const rows = place?.experts?.ids.map((id) => expected[id]) ?? expected;
        expect([name, parameter.toArray()]).toEqual([name, rows]);
        seen.add(place?.name ?? name);
      }
    }
    expect([...seen].sort()).toEqual([...all.keys()].sort());
  });
});
