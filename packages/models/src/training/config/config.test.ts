import { FmoeError } from '@fmoe/torch';
import { describe, expect, it } from 'vitest';
import { applyOverrides, type Config, defineConfig, resolveConfig } from './index.js';

const valid: Config = defineConfig({
  name: 'tiny',
  data: { kind: 'text', train: 'a.txt', valid: 'b.txt', test: '/data/c.txt' },
  model: { kind: 'transformer-xl', nLayer: 1, nHead: 2, dModel: 8, dInner: 16, memLen: 4 },
  training: { steps: 10, batchSize: 2, tgtLen: 4 },
});

function failure(change: (config: Record<string, never>) => void): string {
  const config = structuredClone(valid) as unknown as Record<string, never>;
  change(config);
  try {
    resolveConfig(config);
  } catch (error) {
    expect(FmoeError.isInstance(error) && error.code).toBe('ERR_CONFIG');
    const { message } = error as Error;
    expect(message).not.toContain('\n');
    return message;
  }
  throw new Error('the configuration was accepted');
}

const set = (path: string, value: unknown) => (config: Record<string, never>) => {
  const keys = path.split('.');
  const last = keys.pop()!;
  let inner = config as Record<string, unknown>;
  for (const key of keys) {
    inner[key] ??= {};
    inner = inner[key] as Record<string, unknown>;
  }
  inner[last] = value;
};

describe('resolveConfig', () => {
  it('fills in the defaults and makes data paths absolute', () => {
    const config = resolveConfig(valid, { folder: '/configs' });
    expect(config.training.optimizer).toEqual({
      kind: 'adam',
      lr: 2.5e-4,
      weightDecay: 0,
      betas: [0.9, 0.999],
      eps: 1e-8,
    });
    expect(config.training.schedule).toEqual({ kind: 'cosine', warmupSteps: 0, etaMin: 0 });
    expect(config.evaluation).toEqual({ every: 4000, batchSize: 10, maxSegments: 0 });
    expect(config.data).toEqual({
      kind: 'text',
      train: '/configs/a.txt',
      valid: '/configs/b.txt',
      test: '/data/c.txt',
    });
  });

  it('resolving twice changes nothing', () => {
    const once = resolveConfig(valid, { folder: '/configs' });
    expect(resolveConfig(JSON.parse(JSON.stringify(once)))).toEqual(once);
  });

  const cases: [why: string, change: (config: Record<string, never>) => void, says: RegExp][] = [
    ['an unknown key at the top', set('nmae', 'x'), /unknown key 'nmae' \(did you mean 'name'\?\)/],
    [
      'an unknown nested key',
      set('training.batch_size', 2),
      /'training\.batch_size' \(did you mean 'batchSize'\?\)/,
    ],
    ['an unknown key in a union', set('model.nLayers', 2), /'model\.nLayers' \(did you mean 'nLayer'\?\)/],
    [
      'an unknown key of an optional part',
      set('model.moe', { numExperts: 4 }),
      /'model\.moe\.numExperts' \(did you mean 'numExpert'\?\)/,
    ],
    [
      'an unknown key of a part with defaults',
      set('checkpoint', { evry: 2 }),
      /'checkpoint\.evry' \(did you mean 'every'\?\)/,
    ],
    [
      'a key that is like none',
      set('training.zzzzzz', 1),
      /'training\.zzzzzz' \(valid keys: steps, batchSize,/,
    ],
    [
      'a key of another kind',
      set('training.optimizer', { kind: 'adagrad', betas: [0, 0] }),
      /unknown key 'training\.optimizer\.betas' \(valid keys: kind, lr, weightDecay\)/,
    ],
    ['a missing key', set('training.steps', undefined), /'training\.steps' is missing \(expected a number\)/],
    ['a wrong type', set('training.steps', '10'), /'training\.steps' is '10' \(expected a number\)/],
    [
      'a number that is too small',
      set('training.batchSize', 0),
      /'training\.batchSize' is 0 \(expected number to be >=1\)/,
    ],
    ['a fraction for a count', set('model.nLayer', 1.5), /'model\.nLayer' is 1\.5 \(expected an integer\)/],
    ['NaN', set('training.clip', Number.NaN), /'training\.clip' is NaN \(expected a number\)/],
    [
      'an unknown kind',
      set('data.kind', 'imdb'),
      /'data\.kind' is 'imdb' \(expected 'text' or 'text-file' or 'enwik8'/,
    ],
    [
      'an unknown choice',
      set('training.precision', 'fp16'),
      /'training\.precision' is 'fp16' \(expected 'float32' or 'float64' or 'bfloat16-autocast'\)/,
    ],
    [
      'more chosen experts than there are',
      set('model.moe', { numExpert: 2, topK: 4 }),
      /'model\.moe\.topK' is 4 \(expected at most numExpert/,
    ],
    [
      'a device that is none',
      set('device', 'gpu'),
      /'device' is 'gpu' \(expected 'auto', 'cpu', 'cuda' or 'cuda:1'\)/,
    ],
    ['a name that is no folder name', set('name', '../x'), /'name' is '\.\.\/x' \(expected letters/],
  ];
  it.each(cases)('refuses %s', (_, change, says) => {
    expect(failure(change)).toMatch(says);
  });

  it.each([[null], [undefined], ['text'], [3], [[valid]]])('refuses %j as a whole', (value) => {
    expect(() => resolveConfig(value)).toThrowError(/The configuration is not valid: it is/);
  });
});

describe('applyOverrides', () => {
  it('replaces values by path, as JSON or as text, and leaves the original alone', () => {
    const changed = applyOverrides(valid, [
      'training.steps=200',
      'training.optimizer.kind=sgd',
      'model.moe={"numExpert":4}',
      'name=a=b',
    ]) as Config;
    expect(changed.training.steps).toBe(200);
    expect(changed.training.optimizer).toEqual({ kind: 'sgd' });
    expect(changed.model.moe).toEqual({ numExpert: 4 });
    expect(changed.name).toBe('a=b');
    expect(valid.training.steps).toBe(10);
  });

  it.each(['steps', '=3', 'name.first=x'])('refuses %s', (assignment) => {
    expect(() => applyOverrides(valid, [assignment])).toThrowError(
      expect.objectContaining({ code: 'ERR_CONFIG' }),
    );
  });
});
