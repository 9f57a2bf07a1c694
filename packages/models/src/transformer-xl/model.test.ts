import { collectBalanceLoss, NaiveGate } from '@fmoe/layers';
import {
  autocast,
  FmoeError,
  manualSeed,
  memory,
  nn,
  noGrad,
  randint,
  randn,
  type Tensor,
  tensor,
  tidy,
} from '@fmoe/torch';
import { expectAllClose } from '@fmoe/torch/testing';
import { beforeEach, describe, expect, it } from 'vitest';
import {
  type GateName,
  type MoEConfig,
  type MoEPositionwiseFF,
  namedGates,
  SegmentMemory,
  TransformerXL,
  type TransformerXLOptions,
} from './index.js';

beforeEach(() => {
  manualSeed(8);
});

const small = { nToken: 11, nLayer: 2, nHead: 2, dModel: 16, dInner: 24 };
const experts = { numExpert: 4, topK: 2 };

/** A model in float64 with weights that are large enough for attention to matter. */
function makeModel(options: Partial<TransformerXLOptions> = {}): TransformerXL {
  const model = new TransformerXL({ ...small, ...options }).to('float64').eval();
  tidy(() =>
    noGrad(() => {
      for (const parameter of model.parameters()) if (parameter.ndim > 1) parameter.mul_(12);
    }),
  );
  return model;
}

const tokens = (length: number, batch = 3): Tensor => randint(0, small.nToken, [length, batch]);

/** Losses of a text that is read in segments of the given lengths, with the memory passed on. */
function lossInSegments(model: TransformerXL, text: Tensor, lengths: number[]): Tensor[] {
  const losses: Tensor[] = [];
  let mems: Tensor[] = [];
  let start = 0;
  for (const length of lengths) {
    const output = model.forward(text.narrow(0, start, length), text.narrow(0, start + 1, length), mems);
    mems = output.mems;
    losses.push(output.loss);
    start += length;
  }
  return losses;
}

const kinds: [string, Partial<TransformerXLOptions>][] = [
  ['dense, post-norm', {}],
  ['dense, pre-norm', { preLnorm: true }],
  ['experts, post-norm', { moe: experts }],
  ['experts, pre-norm', { moe: experts, preLnorm: true }],
];

describe.each(kinds)('memory (%s)', (_, kind) => {
  const text = () => tokens(13);

  it('makes two segments equal one long one when it holds the whole past', () => {
    const model = makeModel({ ...kind, memLen: 12 });
    const ids = text();
    const [whole] = lossInSegments(model, ids, [12]);
    const parts = lossInSegments(model, ids, [5, 4, 3]);
    expectAllClose(parts[0]!, whole!.narrow(0, 0, 5), { rtol: 1e-10, atol: 0 });
    expectAllClose(parts[1]!, whole!.narrow(0, 5, 4), { rtol: 1e-10, atol: 0 });
    expectAllClose(parts[2]!, whole!.narrow(0, 9, 3), { rtol: 1e-10, atol: 0 });
  });

  it('makes the segmentation irrelevant with sameLength, even when it is shorter than the text', () => {
    const model = makeModel({ ...kind, memLen: 4, sameLength: true });
    const ids = text();
    // However the text is cut, each query sees itself and the three positions before it.
    const single = lossInSegments(model, ids, new Array(12).fill(1));
    const pairs = lossInSegments(model, ids, [2, 2, 2, 2, 2, 2]);
    const uneven = lossInSegments(model, ids, [4, 1, 3, 4]);
    const flat = (losses: Tensor[]) => losses.flatMap((loss) => loss.toArray() as number[][]);
    expectAllClose(tensor(flat(pairs), { dtype: 'float64' }), flat(single), { rtol: 1e-10, atol: 0 });
    expectAllClose(tensor(flat(uneven), { dtype: 'float64' }), flat(single), { rtol: 1e-10, atol: 0 });
  });

  it('sees no future: later tokens change no earlier loss', () => {
    const model = makeModel({ ...kind, memLen: 6 });
    const ids = text();
    const other = ids.clone();
    other.narrow(0, 7, 6).copy_(tokens(6));
    const [a] = lossInSegments(model, ids, [12]);
    const [b] = lossInSegments(model, other, [12]);
    expectAllClose(a!.narrow(0, 0, 6), b!.narrow(0, 0, 6), { rtol: 1e-12, atol: 0 });
    expect(
      a!
        .narrow(0, 7, 5)
        .sub(b!.narrow(0, 7, 5))
        .abs()
        .max()
        .item(),
    ).toBeGreaterThan(1e-3);
  });

  it('is what attention reads: another memory gives another loss', () => {
    const model = makeModel({ ...kind, memLen: 6 });
    const ids = text();
    const past = model.forward(tokens(6), tokens(6)).mems;
    const without = model.forward(ids.narrow(0, 0, 4), ids.narrow(0, 1, 4)).loss;
    const withPast = model.forward(ids.narrow(0, 0, 4), ids.narrow(0, 1, 4), past).loss;
    expect(without.sub(withPast).abs().max().item()).toBeGreaterThan(1e-4);
  });
});

describe('memory', () => {
  it('holds the last memLen positions of every layer and the embedding, detached', () => {
    const model = makeModel({ memLen: 5 });
    const first = model.forward(tokens(3), tokens(3)).mems;
    expect(first.map((mem) => mem.shape)).toEqual([
      [3, 3, 16],
      [3, 3, 16],
      [3, 3, 16],
    ]);
    const second = model.forward(tokens(4), tokens(4), first).mems;
    expect(second.map((mem) => mem.shape)).toEqual([
      [5, 3, 16],
      [5, 3, 16],
      [5, 3, 16],
    ]);
    expectAllClose(second[1]!.narrow(0, 0, 1), first[1]!.narrow(0, 2, 1));
    const third = model.forward(tokens(7), tokens(7), second).mems;
    expect(third[0]!.shape).toEqual([5, 3, 16]);
    expect([...first, ...second, ...third].some((mem) => mem.requiresGrad)).toBe(false);
  });

  it('is empty with memLen 0', () => {
    expect(makeModel().forward(tokens(4), tokens(4)).mems).toEqual([]);
  });

  it('leaves out the extended context, which the next segment reads again', () => {
    const model = makeModel({ memLen: 12, extLen: 2 });
    const ids = tokens(13);
    const first = model.forward(ids.narrow(0, 0, 6), ids.narrow(0, 1, 6));
    expect(first.mems[0]!.shape[0]).toBe(4);
    // Six new positions and the two before them; the memory ends where they begin.
    const second = model.forward(ids.narrow(0, 4, 8), ids.narrow(0, 7, 6), first.mems);
    const whole = model.forward(ids.narrow(0, 0, 12), ids.narrow(0, 1, 12)).loss;
    expectAllClose(second.loss, whole.narrow(0, 6, 6), { rtol: 1e-10, atol: 0 });
  });

  it('can be made longer for evaluation', () => {
    const model = makeModel({ memLen: 2 });
    const ids = tokens(9);
    const [whole] = lossInSegments(model, ids, [8]);
    model.resetLength({ memLen: 8 });
    const parts = lossInSegments(model, ids, [4, 4]);
    expectAllClose(parts[1]!, whole!.narrow(0, 4, 4), { rtol: 1e-10, atol: 0 });
    expect(model.memLen).toBe(8);
  });

  it('lives outside the scope of a step, and the step before is freed', () => {
    const model = makeModel({ memLen: 6, moe: experts }).train();
    const held = new SegmentMemory();
    const step = () =>
      tidy(() => {
        const output = model.call(tokens(4), tokens(4), held.tensors);
        held.replace(output.mems);
        output.loss.mean().backward();
        model.zeroGrad();
      });
    for (let i = 0; i < 3; i++) step();
    const before = memory().tensors;
    for (let i = 0; i < 10; i++) step();
    expect(memory().tensors).toBe(before);
    expect(held.tensors.map((mem) => mem.shape)).toEqual([
      [6, 3, 16],
      [6, 3, 16],
      [6, 3, 16],
    ]);
    held.clear();
    expect(memory().tensors).toBe(before - 3);
  });
});

describe('clampLen', () => {
  it('treats all larger distances alike', () => {
    // Without position-independent differences: the same token everywhere in the past.
    const model = makeModel({ memLen: 12, clampLen: 3 });
    const distances = model.pos_emb.forward(8);
    expect(distances.shape).toEqual([9, 16]);
    for (let row = 0; row < 4; row++) expectAllClose(distances.at(row), distances.at(4));
    expect(distances.at(4).sub(distances.at(5)).abs().max().item()).toBeGreaterThan(0.1);
  });

  it('changes nothing while no distance is larger', () => {
    const ids = tokens(7);
    const state = makeModel({ memLen: 6 }).stateDict();
    const losses = [-1, 6, 5, 2].map((clampLen) => {
      const model = makeModel({ memLen: 6, clampLen });
      model.loadStateDict(state);
      return lossInSegments(model, ids, [3, 3])[1]!;
    });
    expectAllClose(losses[1]!, losses[0]!, { rtol: 0, atol: 0 });
    expectAllClose(losses[2]!, losses[0]!, { rtol: 0, atol: 0 });
    expect(losses[3]!.sub(losses[0]!).abs().max().item()).toBeGreaterThan(1e-6);
  });
});

describe('TransformerXL', () => {
  it('draws its weights with the standard deviation asked for', () => {
    const model = new TransformerXL({
      nToken: 50,
      nLayer: 1,
      nHead: 2,
      dModel: 64,
      dInner: 128,
      initStd: 0.3,
    });
    tidy(() => {
      // 3200 draws: their standard deviation is within 5 % of the true one, at four standard errors of 1.25 %.
      expect(Math.abs(model.word_emb.weight.std().item() / 0.3 - 1)).toBeLessThan(0.05);
    });
  });

  it('predicts the logits that its loss is made of', () => {
    const model = makeModel({ memLen: 4 });
    const [data, target] = [tokens(5), tokens(5)];
    const { mems } = model.forward(tokens(4), tokens(4));
    const { loss } = model.forward(data, target, mems);
    const predicted = model.predict(data, mems);
    expect(predicted.logits.shape).toEqual([5, 3, small.nToken]);
    const picked = predicted.logits.logSoftmax(-1).gather(-1, target.unsqueeze(-1)).squeeze(-1).neg();
    expectAllClose(loss, picked, { rtol: 1e-12, atol: 0 });
    expect(predicted.mems.length).toBe(3);
  });

  it('ties the embedding and the output layer, or not', () => {
    const tied = makeModel();
    expect(tied.crit.out_layers[0]!.weight).toBe(tied.word_emb.weight);
    const untied = makeModel({ tieWeight: false });
    expect(untied.parameters().length).toBe(tied.parameters().length + 1);
  });

  it('drops out in training mode only, differently in each pass', () => {
    const model = makeModel({ dropout: 0.3, dropatt: 0.2 });
    const [data, target] = [tokens(5), tokens(5)];
    const loss = () => model.forward(data, target).loss.mean().item();
    expect(loss()).toBe(loss());
    model.train();
    expect(loss()).not.toBe(loss());
  });

  it('runs in bfloat16', () => {
    const model = new TransformerXL({ ...small, memLen: 4, moe: experts }).to('bfloat16');
    const { mems } = model.forward(tokens(4), tokens(4));
    const { loss } = model.forward(tokens(4), tokens(4), mems);
    expect(loss.dtype).toBe('bfloat16');
    // Untrained: near the entropy of a uniform guess.
    expect(loss.float().mean().item()).toBeCloseTo(Math.log(small.nToken), 0);
    loss.mean().backward();
    expect(model.word_emb.weight.grad!.isfinite().all().item()).toBeTruthy();
  });
});

describe('under autocast', () => {
  it('trains in bfloat16 with float32 parameters, near the float32 loss', () => {
    const model = makeModel({ memLen: 4, moe: experts }).to('float32').train();
    const [data, target] = [tokens(6), tokens(6)];
    const { mems } = model.forward(data, target);
    const plain = model.forward(data, target, mems).loss.mean();
    const narrow = autocast({ dtype: 'bfloat16' }, () => model.forward(data, target, mems).loss.mean());
    expect(Math.abs(narrow.item() - plain.item()) / plain.item()).toBeLessThan(0.05);
    narrow.backward();
    expect(model.parameters().every((parameter) => parameter.grad!.dtype === 'float32')).toBe(true);
  });
});

describe('a Mixture-of-Experts feed-forward', () => {
  const needs: Record<string, { gateOptions?: object; topK?: number }> = {
    switch: { topK: 1 },
    faster: { gateOptions: { cluster: { nodeOfExpert: [0, 0, 1, 1], node: 0 } } },
    'group-limited': { gateOptions: { numGroups: 2, groupTopK: 1 } },
    'token-rounding': { gateOptions: { tileSize: 4 } },
  };

  it.each(Object.keys(namedGates) as GateName[])('trains with the gate %s by name', (gate) => {
    tidy(() => {
      const moe = { ...experts, ...needs[gate], gate } as MoEConfig;
      const model = new TransformerXL({ ...small, moe }).train();
      const [data, target] = [tokens(5), tokens(5)];
      const { loss } = model.forward(data, target);
      const balance = collectBalanceLoss(model);
      (balance ? loss.mean().add(balance) : loss.mean()).backward();
      expect(Number.isFinite(loss.mean().item())).toBe(true);
      const layer = model.layers.at(0).pos_ff as MoEPositionwiseFF;
      expect(layer.gate).toBeInstanceOf(namedGates[gate]);
      expect(layer.experts.parameters().every((parameter) => parameter.grad !== null)).toBe(true);
    });
  });

  it.each(['faster', 'group-limited'] as const)('says what the gate %s needs', (gate) => {
    expect(() => new TransformerXL({ ...small, moe: { ...experts, gate } })).toThrow(
      expect.objectContaining({ code: 'ERR_ARGUMENT' }),
    );
  });

  it.each(Object.keys(namedGates) as GateName[])(
    'refuses an option that the gate %s does not have',
    (gate) => {
      const { gateOptions, ...rest } = needs[gate] ?? {};
      const moe = { ...experts, ...rest, gate, gateOptions: { ...gateOptions, capacityFactor: 1.2 } };
      expect(() => new TransformerXL({ ...small, moe })).toThrow(
        expect.objectContaining({
          code: 'ERR_ARGUMENT',
          message: expect.stringContaining(`${namedGates[gate].name}: unknown option 'capacityFactor'`),
        }),
      );
    },
  );

  it('takes gateBias from the options of the gate, but no sizes other than its own', () => {
    const build = (gateOptions: object) =>
      new TransformerXL({
        ...small,
        moe: { ...experts, gateOptions: gateOptions as Record<string, unknown> },
      });
    const { gate } = build({ gateBias: false }).layers.at(0).pos_ff as MoEPositionwiseFF;
    expect([...gate.namedParameters()].map(([name]) => name)).toEqual(['gate.weight']);
    expect(() => build({ topK: 1 })).toThrow(
      expect.objectContaining({ code: 'ERR_ARGUMENT', message: expect.stringContaining('topK 1') }),
    );
  });

  it('takes the classes of a gate and an expert, and runs the two-layer experts fused otherwise', () => {
    class Gate extends NaiveGate {}
    const moe = { ...experts, gate: Gate, expert: (dModel: number) => new nn.Linear(dModel, dModel) };
    const layers = [{ moe }, { moe: experts }].map(
      (options) => new TransformerXL({ ...small, ...options }).layers.at(0).pos_ff as MoEPositionwiseFF,
    ) as [MoEPositionwiseFF, MoEPositionwiseFF];
    expect(layers[0].gate).toBeInstanceOf(Gate);
    expect([...layers[0].experts.namedParameters()].map(([name]) => name).slice(0, 2)).toEqual([
      '0.weight',
      '0.bias',
    ]);
    expect(layers.map((layer) => layer.isFused)).toEqual([false, true]);
  });
});

describe('TransformerXL rejects', () => {
  const good = { memLen: 4, moe: experts };
  const build = (options: object) => () => new TransformerXL({ ...small, ...good, ...options });
  const run = (data: Tensor, target: Tensor, mems: Tensor[] = []) => build({})().forward(data, target, mems);
  const mem = (shape: number[]) => randn(shape);

  it.each([
    ['an unknown setting', build({ nLayers: 3 }), 'ERR_CONFIG', /nLayers is no setting/],
    [
      'an unknown setting of the experts',
      build({ moe: { ...experts, k: 1 } }),
      'ERR_CONFIG',
      /moe\.k is unknown/,
    ],
    ['no layers', build({ nLayer: 0 }), 'ERR_CONFIG', /nLayer must be a positive integer, got 0/],
    ['a missing vocabulary', build({ nToken: undefined }), 'ERR_CONFIG', /nToken.*got undefined/],
    ['an odd width', build({ dModel: 15 }), 'ERR_CONFIG', /dModel must be even/],
    [
      'a width below the number of heads',
      build({ nHead: 32 }),
      'ERR_CONFIG',
      /dHead must be a positive integer, got 0/,
    ],
    ['dropout 1', build({ dropout: 1 }), 'ERR_CONFIG', /dropout is a probability/],
    ['NaN as dropatt', build({ dropatt: Number.NaN }), 'ERR_CONFIG', /dropatt is a probability/],
    ['a negative memory', build({ memLen: -1 }), 'ERR_CONFIG', /memLen must be a non-negative integer/],
    ['clampLen 0', build({ clampLen: 0 }), 'ERR_CONFIG', /clampLen/],
    ['an initial spread of 0', build({ initStd: 0 }), 'ERR_CONFIG', /initStd must be a positive number/],
    [
      'sameLength without memory',
      build({ memLen: 0, sameLength: true }),
      'ERR_CONFIG',
      /sameLength needs a memory/,
    ],
    ['a string as a switch', build({ preLnorm: 'yes' }), 'ERR_CONFIG', /preLnorm must be true or false/],
    [
      'topK above numExpert',
      build({ moe: { numExpert: 2, topK: 3 } }),
      'ERR_CONFIG',
      /moe\.topK is 3, but there are only 2/,
    ],
    ['an unknown gate', build({ moe: { ...experts, gate: 'best' } }), 'ERR_CONFIG', /moe\.gate must be/],
    [
      'to forget its memory with sameLength',
      () => build({ sameLength: true })().resetLength({ memLen: 0 }),
      'ERR_CONFIG',
      /memory/,
    ],
    [
      'ids that are no matrix',
      () => run(randint(0, 11, [4]), tokens(4)),
      'ERR_SHAPE',
      /data has shape \[4\]/,
    ],
    ['no ids at all', () => run(randint(0, 11, [0, 3]), tokens(4)), 'ERR_SHAPE', /at least one token/],
    ['ids in floating point', () => run(randn([4, 3]), tokens(4)), 'ERR_DTYPE', /data is float32/],
    [
      'more targets than positions',
      () => run(tokens(4), tokens(5)),
      'ERR_SHAPE',
      /target has shape \[5, 3\]/,
    ],
    [
      'targets of another batch',
      () => run(tokens(4), tokens(4, 2)),
      'ERR_SHAPE',
      /target has shape \[4, 2\]/,
    ],
    ['ids outside of the vocabulary', () => run(tokens(4).add(11), tokens(4)), 'ERR_INDEX', /./],
    ['negative ids', () => run(tokens(4).sub(11), tokens(4)), 'ERR_INDEX', /./],
    ['targets outside of the vocabulary', () => run(tokens(4), tokens(4).add(11)), 'ERR_INDEX', /./],
    [
      'too few memories',
      () => run(tokens(4), tokens(4), [mem([4, 3, 16])]),
      'ERR_ARGUMENT',
      /got 1 memories, expected 3/,
    ],
    [
      'a memory of another batch',
      () => run(tokens(4), tokens(4), [mem([4, 3, 16]), mem([4, 3, 16]), mem([4, 2, 16])]),
      'ERR_SHAPE',
      /\[4, 2, 16\], expected \[4, 3, 16\]/,
    ],
  ])('%s', (_, attempt, code, message) => {
    try {
      attempt();
    } catch (error) {
      expect(error).toBeInstanceOf(FmoeError);
      expect(error).toMatchObject({ code, message: expect.stringMatching(message) });
      return;
    }
    throw new Error('nothing was thrown');
  });
});
