import { cpSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { loadSafetensors, loadTorchFile, nn, saveTorchFile, type Tensor, tidy, zeros } from '@fmoe/torch';
import { expectAllClose, expectIdentical } from '@fmoe/torch/testing';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { SingleExpert } from '../../test/experts.js';
import { runRanks } from '../../test/lockstep.js';
import {
  FMoE,
  FMoETransformerMLP,
  type GateGroup,
  isMegatronFolder,
  loadFastMoECheckpoint,
  type MoELayer,
  mergeFastMoECheckpoint,
  readFastMoECheckpoint,
  saveFastMoECheckpoint,
} from '../index.js';

const fixture = (name: string): string =>
  fileURLToPath(new URL(`../../test/fixtures/${name}`, import.meta.url));
const key = 'model.language_model.encoder';
const folders = ['megatron-per-expert', 'megatron-fused'];
const sizes = { numExpert: 6, dModel: 4, topK: 2 };

let scratch = '';
beforeAll(() => {
  scratch = mkdtempSync(join(tmpdir(), 'fmoe-megatron-'));
});
afterAll(() => rmSync(scratch, { recursive: true }));

type Spread = { moeGroup?: GateGroup };
const layers = {
  'fused layers': (spread: Spread) => new FMoETransformerMLP({ ...sizes, dHidden: 5, ...(spread as object) }),
  'layers with a module for each expert': (spread: Spread) =>
    new FMoE({ ...sizes, expert: () => new SingleExpert(), ...(spread as object) }),
};

class Block extends nn.Module {
  readonly input_layernorm = new nn.LayerNorm(4);
  constructor(readonly mlp: MoELayer) {
    super();
  }
  override forward(x: Tensor): Tensor {
    return x.add(this.mlp.call(this.input_layernorm.call(x)));
  }
}

class Model extends nn.Module {
  readonly layers: nn.ModuleList;
  constructor(make: (spread: Spread) => MoELayer, spread: Spread = {}) {
    super();
    this.layers = new nn.ModuleList([new Block(make(spread)), new Block(make(spread))]);
    this.to('float64');
  }
  override forward(x: Tensor): Tensor {
    return [...this.layers].reduce((h, block) => block.call(h), x);
  }
}

describe.each(Object.entries(layers))('%s', (_, make) => {
  it.each(folders)('give the outputs of PyTorch after loading the experts of all ranks of %s', (name) => {
    tidy(() => {
      const { x, y } = loadSafetensors(fixture('megatron-outputs.safetensors')).tensors;
      for (const path of [fixture(name), join(fixture(name), 'iter_0000007')]) {
        const model = new Model(make);
        expect(loadFastMoECheckpoint(model, path, { key })).toEqual({ missingKeys: [], unexpectedKeys: [] });
        expectAllClose(model.forward(x!), y!, { rtol: 1e-12, atol: 1e-12 });
      }
    });
  });

  it.each(folders)('take their own experts of %s where other ranks have the rest', (name) => {
    tidy(() => {
      const whole = new Model(make);
      loadFastMoECheckpoint(whole, fixture(name), { key });
      const state = whole.stateDict();
      const ids = [[0, 1], [2, 3], [4], [5]];
      const states = runRanks(4, (moeGroup) => {
        const model = new Model(make, { moeGroup });
        expect(loadFastMoECheckpoint(model, fixture(name), { key })).toEqual({
          missingKeys: [],
          unexpectedKeys: [],
        });
        expect(() => saveFastMoECheckpoint(model, join(scratch, 'part.pt'))).toThrow(
          expect.objectContaining({
            code: 'ERR_ARGUMENT',
            message: expect.stringMatching(/layers\.0\.mlp has [12] of its 6 experts here/),
          }),
        );
        return model.stateDict();
      });
      for (const [rank, own] of states.entries()) {
        for (const [parameter, tensor] of Object.entries(own)) {
          const listed = parameter.replace(
            /experts\.(\d+)/,
            (_, slot) => `experts.${ids[rank]![Number(slot)]}`,
          );
          const isFused = /experts\.h/.test(parameter);
          expectIdentical(
            tensor,
            isFused ? state[parameter]!.narrow(0, ids[rank]![0]!, ids[rank]!.length) : state[listed]!,
          );
        }
      }
    });
  });
});

describe('a folder of the plug-in for Megatron-LM', () => {
  it.each(folders)('%s is merged into one file, under the names of the whole model', (name) => {
    tidy(() => {
      const output = join(scratch, `${name}.pt`);
      mergeFastMoECheckpoint(fixture(name), output, { form: 'perExpert' });
      const merged = loadTorchFile(output) as nn.StateDict;
      const prefix = 'language_model.encoder.layers.1.mlp.experts';
      expect(Object.keys(merged).filter((key) => key.startsWith(prefix))).toHaveLength(6 * 4);
      expect(merged[`${prefix}.5.htoh4.weight`]!.shape).toEqual([1, 5, 4]);
      // Expert 5 is the second of rank 2. Element i of tensor k is (k + 1 + i / 1000) / 10, of which the script took the cosine.
      const first = merged[`${prefix}.5.htoh4.weight`]!.toArray() as number[][][];
      expect(first[0]![0]![0]).toBeCloseTo(Math.cos((12 + (5 * 20) / 1000) / 10), 14);
      expect(merged['language_model.embedding.word_embeddings.weight']!.shape).toEqual([3, 4]);
      const model = new Model(layers['fused layers']);
      const whole = readFastMoECheckpoint(fixture(name), { key });
      loadFastMoECheckpoint(model, fixture(name), { key });
      for (const [parameter, tensor] of Object.entries(whole)) {
        const [, number] = /experts\.(\d+)\./.exec(parameter) ?? [];
        const mine = model.stateDict()[parameter.replace(/experts\.\d+\./, 'experts.')]!;
        expectIdentical(number === undefined ? mine : mine.narrow(0, Number(number), 1), tensor);
      }
    });
  });

  it('is known by what is in it', () => {
    expect(folders.map((name) => isMegatronFolder(fixture(name)))).toEqual([true, true]);
    expect(isMegatronFolder(join(fixture('megatron-fused'), 'iter_0000007'))).toBe(true);
    expect(['.', 'fastmoe-fused.pt', 'nowhere'].map((name) => isMegatronFolder(fixture(name)))).toEqual([
      false,
      false,
      false,
    ]);
  });

  /** A copy of a fixture, changed. */
  function changed(change: (iteration: string) => void): string {
    const folder = mkdtempSync(join(scratch, 'changed-'));
    cpSync(fixture('megatron-per-expert'), folder, { recursive: true });
    change(join(folder, 'iter_0000007'));
    return folder;
  }
  const without = (name: string) => (iteration: string) => rmSync(join(iteration, name), { recursive: true });
  const rewrite = (rank: number, edit: (state: nn.StateDict) => void) => (iteration: string) =>
    tidy(() => {
      const path = join(iteration, `mp_rank_00_dp_rank_000${rank}`, 'model_optim_rng.pt');
      const content = loadTorchFile(path) as { model: { language_model: { encoder: nn.StateDict } } };
      edit(content.model.language_model.encoder);
      saveTorchFile(path, content);
    });

  it.each([
    [
      'a rank between others is missing',
      without('mp_rank_00_dp_rank_0001'),
      'ERR_FILE',
      /file of rank 1 is missing/,
    ],
    [
      'the last rank is missing',
      without('mp_rank_00_dp_rank_0002'),
      'ERR_FILE',
      /gate\.gate\.weight is for 6 experts, but 2 ranks have 4/,
    ],
    ['rank 0 is missing', without('mp_rank_00'), 'ERR_ARGUMENT', /has no parts/],
    [
      'a rank’s file is cut off',
      (iteration: string) =>
        writeFileSync(join(iteration, 'mp_rank_00_dp_rank_0001/model_optim_rng.pt'), 'PK'),
      'ERR_FILE',
      /dp_rank_0001/,
    ],
    [
      'a rank lacks an expert',
      rewrite(2, (state) => {
        for (const name of Object.keys(state)) if (name.includes('1.mlp.experts.1')) delete state[name];
      }),
      'ERR_FILE',
      /of rank 0 and rank 2 only one has layers\.1\.mlp\.experts\.1/,
    ],
    [
      'a rank has an expert too many',
      rewrite(1, (state) => {
        state['layers.0.mlp.experts.2.htoh4.bias'] = zeros([1, 5]);
      }),
      'ERR_FILE',
      /of rank 0 and rank 1 only one has layers\.0\.mlp\.experts\.2\.htoh4\.bias/,
    ],
    [
      'the iteration is not there',
      (iteration: string) =>
        writeFileSync(join(dirname(iteration), 'latest_checkpointed_iteration.txt'), '../8'),
      'ERR_FILE',
      /says '\.\.\/8', but there is no such iteration/,
    ],
    [
      'there are several parts',
      (iteration: string) => mkdirSync(join(iteration, 'mp_rank_01')),
      'ERR_ARGUMENT',
      /has the parts mp_rank_00, mp_rank_01; say which/,
    ],
  ] as const)('is refused when %s', (_, change, code, message) => {
    tidy(() => {
      const path = changed(change);
      expect(() => readFastMoECheckpoint(path, { key })).toThrow(
        expect.objectContaining({ code, message: expect.stringMatching(message) }),
      );
    });
  });

  it('with several parts gives the one that is asked for', () => {
    tidy(() => {
      const path = changed((iteration) => {
        for (const rank of ['', '_dp_rank_0001', '_dp_rank_0002']) {
          cpSync(join(iteration, `mp_rank_00${rank}`), join(iteration, `mp_rank_01${rank}`), {
            recursive: true,
          });
        }
      });
      const state = readFastMoECheckpoint(path, { key, part: 'mp_rank_01' });
      expect(Object.keys(state)).toEqual(
        Object.keys(readFastMoECheckpoint(fixture('megatron-per-expert'), { key })),
      );
      expect(() => readFastMoECheckpoint(path, { part: 'mp_rank_02' })).toThrow(
        expect.objectContaining({ code: 'ERR_ARGUMENT', message: expect.stringMatching(/no mp_rank_02/) }),
      );
    });
  });
});
