import { manualSeed, memory, noGrad, type Tensor, tensor, tidy } from '@fmoe/torch';
import { collectGarbage } from '@fmoe/torch/testing';
import { describe, expect, it } from 'vitest';
import { codedError } from '../../test/support/temporary-folder.js';
import { CharacterVocabulary } from '../data/index.js';
import { buildModel } from './build-model.js';
import { resolveConfig } from './config/index.js';
import { evaluate } from './evaluate.js';
import { generate } from './generate.js';

const { model: modelConfig } = resolveConfig({
  name: 'x',
  data: { kind: 'text-file', path: 'x' },
  model: {
    kind: 'transformer-xl',
    nLayer: 2,
    nHead: 2,
    dModel: 16,
    dInner: 16,
    memLen: 6,
    dropout: 0.5,
    moe: { numExpert: 4, gate: 'noisy' },
  },
  training: { steps: 1, batchSize: 1, tgtLen: 4 },
});

const letters = [...'abcdefgh'];
const vocabulary = new CharacterVocabulary(letters);
const stream = Uint8Array.from({ length: 101 }, (_, i) => (i * i + 3 * i) % 9);

function makeModel() {
  manualSeed(3);
  return buildModel(modelConfig, vocabulary.size);
}

async function liveTensors(): Promise<number> {
  await collectGarbage();
  return memory().tensors;
}

describe('evaluate', () => {
  it('gives the loss of a walk written out by hand', async () => {
    const model = makeModel();
    const result = await evaluate(model, stream, { batchSize: 2, tgtLen: 4, memLen: 10, device: 'cpu' });

    model.eval();
    model.resetLength({ memLen: 10 });
    const expected = tidy(() =>
      noGrad(() => {
        // Two columns of 50 tokens: 49 targets each, the last segment with one.
        const rows = (from: number, to: number) =>
          tensor(
            Array.from({ length: to - from }, (_, row) => [stream[from + row]!, stream[50 + from + row]!]),
            { dtype: 'int64' },
          );
        let mems: Tensor[] = [];
        let sum = 0;
        for (let at = 0; at < 49; at += 4) {
          const to = Math.min(at + 4, 49);
          const out = model.forward(rows(at, to), rows(at + 1, to + 1), mems);
          mems = out.mems;
          sum += out.loss.double().sum().item();
        }
        return sum / 98;
      }),
    );
    expect(result).toEqual({ loss: expect.closeTo(expected, 10), tokens: 98 });
  });

  it('leaves mode, memory length, generator and tensors as they were', async () => {
    const model = makeModel();
    const options = { batchSize: 2, tgtLen: 4, memLen: 10, device: 'cpu' };
    await evaluate(model, stream, options);
    const tensors = await liveTensors();
    expect(await evaluate(model, stream, options)).toEqual(await evaluate(model, stream, options));
    expect(model.training).toBe(true);
    expect(model.memLen).toBe(6);
    expect(await liveTensors()).toBe(tensors);
  });

  it('stops at a number of segments or at a signal', async () => {
    const model = makeModel();
    const options = { batchSize: 2, tgtLen: 4, device: 'cpu' };
    expect((await evaluate(model, stream, { ...options, maxSegments: 3 }))!.tokens).toBe(24);
    expect(await evaluate(model, stream, { ...options, signal: AbortSignal.abort() })).toBeUndefined();
  });

  it('refuses a stream that is too short', async () => {
    const options = { batchSize: 60, tgtLen: 4, device: 'cpu' };
    await expect(evaluate(makeModel(), stream, options)).rejects.toEqual(
      codedError('ERR_FILE', /101 tokens do not fill 60 columns/),
    );
  });
});

describe('generate', () => {
  it('takes the likeliest token at temperature 0, as the logits of the whole text say', async () => {
    const model = makeModel();
    model.resetLength({ memLen: 40 });
    const drawn = await generate(model, vocabulary, {
      prompt: 'abc',
      length: 12,
      temperature: 0,
      device: 'cpu',
    });
    expect(drawn.length).toBe(12);
    model.eval();
    const ids = Array.from(vocabulary.encode(`abc${drawn}`));
    const likeliest = tidy(() =>
      noGrad(() => {
        const { logits } = model.predict(tensor(ids, { dtype: 'int64' }).unsqueeze(1));
        return Array.from(logits.argmax(-1).squeeze(1).data() as BigInt64Array, Number);
      }),
    );
    expect(ids.slice(3)).toEqual(likeliest.slice(2, -1));
  });

  it('draws the same text from the same seed, within the likeliest tokens', async () => {
    const model = makeModel();
    const draw = (seed: number, topK: number) => {
      manualSeed(seed);
      return generate(model, vocabulary, { prompt: 'a', length: 30, topK, device: 'cpu' });
    };
    expect(await draw(1, 0)).toBe(await draw(1, 0));
    expect(await draw(1, 0)).not.toBe(await draw(2, 0));
    const greedy = await generate(model, vocabulary, {
      prompt: 'a',
      length: 30,
      temperature: 0,
      device: 'cpu',
    });
    expect(await draw(5, 1)).toBe(greedy);
  });

  it('refuses an empty prompt and leaves no tensor behind', async () => {
    const model = makeModel();
    const options = { length: 5, device: 'cpu' };
    await generate(model, vocabulary, { ...options, prompt: 'a' });
    const tensors = await liveTensors();
    await generate(model, vocabulary, { ...options, prompt: 'a' });
    expect(await liveTensors()).toBe(tensors);
    await expect(generate(model, vocabulary, { ...options, prompt: '' })).rejects.toEqual(
      codedError('ERR_ARGUMENT', /the prompt is empty/),
    );
  });
});
