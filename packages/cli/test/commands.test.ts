import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { SafetensorsFile } from '@fmoe/torch';
import { describeUnless } from '@fmoe/torch/testing';
import { beforeAll, describe, expect, it } from 'vitest';
import { capture } from './capture.js';
import { makeWorkspace } from './workspace.js';

const { folder, config, run } = makeWorkspace();

beforeAll(async () => {
  const { code, out, error } = await capture('train', '--config', config, '--set', 'training.steps=30');
  expect(error).toBe('');
  expect(code).toBe(0);
  expect(out).toMatch(/model {5}transformer-xl, 1 layers, d 16, .*4 experts of 16, top-2, naive gate/);
  expect(out).toMatch(
    /step 30\/30 \| loss \d\.\d+ \| bpc \d\.\d+ \| \d+ tokens\/s \| imbalance \d\.\d+ \| 0:00 left/,
  );
  expect(out).toMatch(/test {2}bits per character \d\.\d{3}/);
});

describe('fmoe checkpoint merge', () => {
  it('makes one file of what FastMoE saved for Megatron-LM', async () => {
    const fixture = fileURLToPath(new URL('../../layers/test/fixtures/megatron-per-expert', import.meta.url));
    const output = join(folder, 'merged.safetensors');
    expect(await capture('checkpoint', 'merge', fixture, output)).toMatchObject({ code: 0, error: '' });
    const file = new SafetensorsFile(output);
    expect(file.info('language_model.encoder.layers.1.mlp.experts.htoh4.weight').shape).toEqual([6, 5, 4]);
    file.close();
    expect(await capture('checkpoint', 'merge', fixture, output, '--part', 'mp_rank_03')).toMatchObject({
      code: 1,
      error: expect.stringMatching(/^fmoe: ERR_ARGUMENT: .*mp_rank_00; there is no mp_rank_03/),
    });
  });
});

describe('fmoe train', () => {
  it('leaves the resolved configuration, metrics, events and a checkpoint', () => {
    const saved = JSON.parse(readFileSync(join(run, 'config.json'), 'utf8'));
    expect(saved.training).toMatchObject({ steps: 30, clip: 0.25 });
    expect(saved.data.train).toBe(join(folder, 'train.txt'));
    for (const name of [
      'metrics.jsonl',
      'vocabulary.json',
      'tensorboard',
      'checkpoints/step-00000030/model.safetensors',
    ]) {
      expect(existsSync(join(run, name))).toBe(true);
    }
  });

  it('does not write over a run unless told to, and resumes one', async () => {
    expect(await capture('train', '-c', config)).toMatchObject({
      code: 1,
      error: expect.stringMatching(/^fmoe: ERR_CONFIG: .*holds a run already\. Resume it \(--resume\).*\n$/),
    });
    const resumed = await capture('train', '-c', config, '-s', 'training.steps=40', '--resume');
    expect(resumed).toMatchObject({ code: 0, error: '' });
    expect(resumed.out).toMatch(/from step 30 to step 40/);
    const again = await capture('train', '-c', config, '-s', 'training.steps=30', '--overwrite');
    expect(again).toMatchObject({ code: 0, error: '' });
  });

  it('leaves the old run where the new one cannot begin, in training or in the evaluation after it', async () => {
    const before = readFileSync(join(run, 'metrics.jsonl'), 'utf8');
    for (const key of ['training', 'evaluation']) {
      const failed = await capture('train', '-c', config, '-s', `${key}.batchSize=9000`, '--overwrite');
      expect(failed).toMatchObject({ code: 1, error: expect.stringMatching(/The text is too short/) });
    }
    expect(readFileSync(join(run, 'metrics.jsonl'), 'utf8')).toBe(before);
    expect((await capture('eval', run)).code).toBe(0);
  });

  it('drops what an abandoned continuation saved, once it has saved something of its own', async () => {
    const start = (...args: string[]) =>
      capture(
        'train',
        '-c',
        config,
        '-s',
        'name=back',
        '-s',
        'checkpoint.every=10',
        '-s',
        'checkpoint.keep=9',
        ...args,
      );
    const steps = () =>
      readdirSync(join(folder, 'runs/back/checkpoints')).filter((name) => name.startsWith('step'));
    expect((await start('-s', 'training.steps=40')).code).toBe(0);
    expect((await start('-s', 'training.steps=25', '--resume', '10')).code).toBe(0);
    expect(steps()).toEqual(['step-00000010', 'step-00000020', 'step-00000025']);
    expect((await capture('eval', join(folder, 'runs/back'))).out).toMatch(/at step 25/);
  });

  it('refuses a corpus with other tokens than those it was trained with', async () => {
    const text = readFileSync(join(folder, 'test.txt'), 'utf8');
    const other = makeWorkspace();
    expect((await capture('train', '-c', other.config)).code).toBe(0);
    for (const name of ['train', 'valid', 'test']) {
      writeFileSync(join(other.folder, `${name}.txt`), text.replaceAll('p', 'q'));
    }
    const message = expect.stringMatching(/ERR_FILE: The data has other tokens/);
    expect(await capture('eval', other.run)).toMatchObject({ code: 1, error: message });
    const resumed = await capture('train', '-c', other.config, '-s', 'training.steps=25', '--resume');
    expect(resumed).toMatchObject({ code: 1, error: message });
  });
});

/** Why there can be no pictures here: their packages are for whoever wants them. */
function missingPictures(): string | undefined {
  try {
    createRequire(new URL('../../models/package.json', import.meta.url)).resolve('@resvg/resvg-js');
    return undefined;
  } catch {
    return 'echarts and @resvg/resvg-js are not installed';
  }
}

describe('fmoe eval and generate', () => {
  it('evaluate a part of the corpus with other lengths', async () => {
    const { code, out } = await capture('eval', run, '--split', 'valid', '--tgt-len', '4', '--mem-len', '16');
    expect(code).toBe(0);
    expect(out).toMatch(
      /^tiny at step 30, valid: bits per character \d\.\d{4}, .* \(segment 4, memory 16\)\n$/,
    );
  });

  it('give the same figure as the training did at its end', async () => {
    const { out } = await capture('eval', run);
    const lines = readFileSync(join(run, 'metrics.jsonl'), 'utf8').trim().split('\n');
    const last = JSON.parse(lines.at(-1)!) as { split: string; loss: number };
    expect(last.split).toBe('test');
    expect(out).toContain(`loss ${last.loss.toFixed(4)} nats`);
  });

  it('write text, the same for the same seed', async () => {
    const args = ['generate', run, '--prompt', 'the ', '--length', '20', '--seed', '7'];
    const first = await capture(...args);
    expect(first.code).toBe(0);
    expect(first.out).toMatch(/^the [\s\S]{20}\n$/);
    expect(await capture(...args)).toEqual(first);
  });

  it('show what the machine has', async () => {
    const { out } = await capture('doctor');
    expect(out).toMatch(/^item\s+state\s+found\n/);
    expect(out).toMatch(/libtorch\s+ok\s+\d+\.\d+/);
  });
});

describe('a mistake', () => {
  const file = (name: string, content: string): string => {
    const path = join(folder, name);
    writeFileSync(path, content);
    return path;
  };
  const cases: [why: string, args: () => string[], message: RegExp][] = [
    ['no configuration', () => ['train'], /ERR_ARGUMENT: required option '-c, --config <file>'/],
    ['an unknown command', () => ['trian'], /ERR_ARGUMENT: unknown command 'trian' \(Did you mean train\?\)/],
    ['an unknown option', () => ['plot', run, '--fast'], /ERR_ARGUMENT: unknown option '--fast'/],
    [
      'a missing file',
      () => ['train', '-c', join(folder, 'no.ts')],
      /ERR_CONFIG: There is no configuration file/,
    ],
    [
      'a file with a syntax error',
      () => ['train', '-c', file('syntax.ts', 'export default {')],
      /ERR_CONFIG: .*syntax\.ts does not load/,
    ],
    [
      'a file that throws',
      () => ['train', '-c', file('throws.ts', 'throw new Error("no luck")')],
      /ERR_CONFIG: .*does not load: no luck/,
    ],
    [
      'a file without a configuration',
      () => ['train', '-c', file('empty.ts', 'export const a = 1;')],
      /ERR_CONFIG: /,
    ],
    [
      'JSON that is not valid',
      () => ['train', '-c', file('bad.json', '{')],
      /ERR_CONFIG: .*bad\.json is not valid JSON/,
    ],
    [
      'an unknown key',
      () => ['train', '-c', config, '-s', 'training.lerningRate=1'],
      /ERR_CONFIG: .*unknown key 'training\.lerningRate'/,
    ],
    [
      'an assignment without a value',
      () => ['train', '-c', config, '-s', 'steps'],
      /ERR_CONFIG: 'steps' is not of the form key=value/,
    ],
    [
      'more chosen experts than there are',
      () => ['train', '-c', config, '-s', 'model.moe.topK=9'],
      /ERR_CONFIG: .*'model\.moe\.topK' is 9/,
    ],
    [
      'missing data',
      () => ['train', '-c', config, '-s', 'name=other', '-s', 'data.train=/no/such'],
      /ERR_FILE: Cannot read \/no\/such/,
    ],
    [
      'a batch wider than the text',
      () => ['train', '-c', config, '-s', 'name=other', '-s', 'training.batchSize=9000'],
      /ERR_FILE: The text is too short/,
    ],
    [
      'heads that do not fit',
      () => ['train', '-c', config, '-s', 'name=other', '-s', 'model.dModel=15'],
      /ERR_CONFIG: /,
    ],
    [
      'a GPU that is not there',
      () => ['train', '-c', config, '-s', 'name=other', '-s', 'device=cuda:99'],
      /ERR_DEVICE: device 'cuda:99'/,
    ],
    [
      'resuming what never ran',
      () => ['train', '-c', config, '-s', 'name=other', '--resume'],
      /ERR_FILE: .*is not the folder of a run/,
    ],
    [
      'resuming another model',
      () => ['train', '-c', config, '-s', 'model.dModel=32', '--resume'],
      /ERR_CONFIG: 'model' is not what the run/,
    ],
    [
      'resuming with another learning rate',
      () => ['train', '-c', config, '-s', 'training.optimizer.lr=0.5', '--resume'],
      /ERR_CONFIG: 'training\.optimizer' is not what the run/,
    ],
    [
      'a training that diverges',
      () => ['train', '-c', config, '-s', 'name=wild', '-s', 'training.optimizer.lr=1e30'],
      /ERR_RUNTIME: .*step \d+/,
    ],
    [
      'heads that share the model unevenly',
      () => ['train', '-c', config, '-s', 'name=other', '-s', 'model.nHead=5'],
      /ERR_CONFIG: .*'model\.nHead'.*divisor of dModel/,
    ],
    ['a device of no kind', () => ['eval', run, '--device', 'tpu'], /ERR_ARGUMENT: device 'tpu' is none of/],
    [
      'a checkpoint that is not there',
      () => ['generate', run, '--checkpoint', '77'],
      /ERR_FILE: There is no checkpoint 77\. Steps that were kept: .*30/,
    ],
    ['a folder that is no run', () => ['eval', folder], /ERR_FILE: .*is not the folder of a run/],
    ['a plot of nothing', () => ['plot', folder], /ERR_FILE: Cannot read .*metrics\.jsonl/],
    [
      'an unknown part',
      () => ['eval', run, '--split', 'dev'],
      /ERR_ARGUMENT: .*Allowed choices are train, valid, test/,
    ],
    [
      'a length that is no number',
      () => ['generate', run, '-n', 'many'],
      /ERR_ARGUMENT: .*Expected an integer of at least 1/,
    ],
    [
      'an empty prompt',
      () => ['generate', run, '--prompt', ''],
      /ERR_ARGUMENT: generate: the prompt is empty/,
    ],
  ];
  it.each(cases)('ends in one line with its code: %s', async (_, args, message) => {
    const { code, error } = await capture(...args());
    expect(error).toMatch(message);
    expect(error).toMatch(/^fmoe: ERR_[A-Z_]+: [^\n]+\n$/);
    expect(error).not.toMatch(/\n\s+at /);
    expect(code).toBe(1);
  });

  it('leaves no run behind', () => {
    expect(existsSync(join(folder, 'runs', 'other'))).toBe(false);
  });
});

describeUnless(missingPictures(), 'fmoe plot', () => {
  it('write a report that needs nothing from elsewhere, and pictures', async () => {
    const output = join(folder, 'report');
    const { code, out } = await capture('plot', run, '--output', output, '--title', 'A <small> run');
    expect(code).toBe(0);
    expect(
      out
        .trim()
        .split('\n')
        .map((path) => path.slice(output.length + 1)),
    ).toEqual([
      'report.html',
      'loss-over-steps.svg',
      'loss-over-steps.png',
      'loss-over-seconds.svg',
      'loss-over-seconds.png',
      'expert-load-tiny.svg',
      'expert-load-tiny.png',
      'expert-load-over-time-tiny.svg',
      'expert-load-over-time-tiny.png',
    ]);
    const page = readFileSync(join(output, 'report.html'), 'utf8');
    expect(page).toContain('<title>A &lt;small&gt; run</title>');
    expect(page.match(/(src|href)=/g)).toBeNull();
    expect(page.match(/<svg /g)!.length).toBe(4);
    const png = readFileSync(join(output, 'expert-load-tiny.png'));
    expect(png.subarray(1, 4).toString()).toBe('PNG');
    expect(png.readUInt32BE(16)).toBe(1720);
  });
});
