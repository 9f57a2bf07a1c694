import { appendFileSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Writable } from 'node:stream';
import { describe, expect, it } from 'vitest';
import { codedError, temporaryFolder } from '../../../test/support/temporary-folder.js';
import { JsonlSink, readMetrics } from './jsonl-sink.js';
import { clock, ProgressSink, progressLine } from './progress-sink.js';
import {
  bitsPerToken,
  coefficientOfVariation,
  imbalance,
  type MetricRecord,
  quotedLoss,
  type StartRecord,
  type TrainRecord,
  worstImbalance,
} from './records.js';
import { TensorBoardSink } from './tensorboard-sink.js';

const start: StartRecord = {
  kind: 'start',
  step: 0,
  seconds: 0,
  steps: 100,
  name: 'run',
  unit: 'character',
  parameters: 1234567,
  device: 'cpu',
  config: { a: 1 },
};

const train = (step: number): TrainRecord => ({
  kind: 'train',
  step,
  seconds: step / 2,
  loss: Math.LN2 * 2,
  balanceLoss: 1.25,
  learningRate: 1e-3,
  gradientNorm: 0.5,
  tokensPerSecond: 1000.4,
  expertLoad: [
    [10, 30],
    [20, 20],
  ],
});

const evaluation: MetricRecord = {
  kind: 'evaluation',
  step: 20,
  seconds: 10,
  split: 'valid',
  loss: Math.LN2 * 3,
  tokens: 50,
};

describe('figures', () => {
  it('turns nats into bits and perplexity', () => {
    expect(bitsPerToken(Math.log(8))).toBeCloseTo(3, 12);
    expect(quotedLoss(Math.log(8), 'byte')).toMatchObject({ name: 'bits per byte', value: 3 });
    expect(quotedLoss(Math.log(8), 'word').value).toBeCloseTo(8, 10);
  });

  it('measures imbalance as the largest load over the mean', () => {
    expect(imbalance([5, 5, 5, 5])).toBe(1);
    expect(imbalance([40, 0, 0, 0])).toBe(4);
    expect(imbalance([0, 0])).toBe(0);
    expect(
      worstImbalance([
        [10, 30],
        [20, 20],
      ]),
    ).toBe(1.5);
    expect(worstImbalance([])).toBeUndefined();
  });

  it('measures variation as the standard deviation over the mean', () => {
    // Mean 20, squared deviations 100 + 100 over n - 1 = 1.
    expect(coefficientOfVariation([10, 30])).toBeCloseTo(Math.sqrt(200) / 20, 12);
    expect([
      coefficientOfVariation([5, 5, 5]),
      coefficientOfVariation([0, 0]),
      coefficientOfVariation([]),
    ]).toEqual([0, 0, 0]);
  });

  it('writes durations', () => {
    expect(clock(0)).toBe('0:00');
    expect(clock(59.6)).toBe('1:00');
    expect(clock(3725)).toBe('1:02:05');
  });
});

describe('JsonlSink', () => {
  it('writes a record a line and reads them back', () => {
    const path = join(temporaryFolder(), 'run', 'metrics.jsonl');
    const sink = new JsonlSink(path, { resumeFrom: 0 });
    for (const record of [start, train(10), evaluation]) sink.write(record);
    expect(readFileSync(path, 'utf8').split('\n').length).toBe(4);
    expect(readMetrics(path)).toEqual([start, train(10), evaluation]);
  });

  it('drops what came after the step that a run goes on from, and a line that was cut off', () => {
    const path = join(temporaryFolder(), 'metrics.jsonl');
    const sink = new JsonlSink(path, { resumeFrom: 0 });
    for (const record of [start, train(10), train(20), evaluation, train(30)]) sink.write(record);
    appendFileSync(path, '{"kind":"train","st');
    new JsonlSink(path, { resumeFrom: 20 }).write(train(25));
    expect(readMetrics(path)).toEqual([start, train(10), train(20), evaluation, train(25)]);
    new JsonlSink(path, { resumeFrom: 0 });
    expect(readMetrics(path)).toEqual([]);
  });

  it('refuses files that hold something else', () => {
    const path = join(temporaryFolder(), 'metrics.jsonl');
    expect(() => readMetrics(path)).toThrow(codedError('ERR_FILE', /is this the folder of a run/));
    writeFileSync(path, `${JSON.stringify(start)}\n{"loss":3}\n`);
    expect(() => readMetrics(path)).toThrow(codedError('ERR_FILE', /line 2: not a record/));
  });
});

class Screen extends Writable {
  text = '';
  isTTY: boolean;
  columns = 120;

  constructor(isTTY: boolean) {
    super();
    this.isTTY = isTTY;
  }

  override _write(chunk: Buffer, _: string, done: () => void): void {
    this.text += chunk.toString();
    done();
  }

  cursorTo(): void {}
  clearLine(): void {}
}

describe('TensorBoardSink', () => {
  it('writes what is known of each layer, and leaves out what is not', () => {
    const folder = temporaryFolder();
    const sink = new TensorBoardSink(folder);
    sink.write(start);
    sink.write({ ...train(10), droppedShare: [0.25, null], routerEntropy: [null, 1.5] });
    sink.close();
    const [name] = readdirSync(folder);
    const bytes = readFileSync(join(folder, name!), 'latin1');
    const tags = ['imbalance', 'coefficient_of_variation', 'load', 'dropped_share', 'router_entropy'].map(
      (tag) => [0, 1].map((layer) => bytes.includes(`experts/${tag}/layer_${layer}`)),
    );
    expect(tags).toEqual([
      [true, true],
      [true, true],
      [true, true],
      [true, false],
      [false, true],
    ]);
  });
});

describe('ProgressSink', () => {
  it('prints plain lines off a terminal, not too often, and the last one always', () => {
    const stream = new Screen(false);
    let now = 0;
    const sink = new ProgressSink({ stream, now: () => now, secondsBetweenLines: 5 });
    sink.write(start);
    for (const step of [10, 20, 30]) {
      sink.write(train(step));
      now += 3000;
    }
    sink.write(evaluation);
    sink.write(train(100));
    sink.close();
    expect(stream.text.split('\n')).toEqual([
      'run: 1,234,567 parameters on cpu, to step 100',
      'step 10/100 | loss 1.3863 | bpc 2.000 | 1000 tokens/s | imbalance 1.50 | 0:45 left',
      'step 30/100 | loss 1.3863 | bpc 2.000 | 1000 tokens/s | imbalance 1.50 | 0:35 left',
      'step 20 | valid loss 2.0794 | bits per character 3.000',
      'step 100/100 | loss 1.3863 | bpc 2.000 | 1000 tokens/s | imbalance 1.50 | 0:00 left',
      '',
    ]);
  });

  it('says what share of the slots was dropped, where any was', () => {
    const line = (droppedShare: (number | null)[]) => progressLine({ ...train(10), droppedShare }, start, 5);
    expect(line([0.125, null, 0.5])).toContain('imbalance 1.50 | dropped 50.0 % | 0:05 left');
    expect(line([0, null])).toContain('imbalance 1.50 | 0:05 left');
  });

  it('draws a bar on a terminal, with the same figures', () => {
    const stream = new Screen(true);
    const sink = new ProgressSink({ stream });
    sink.write(start);
    sink.write(train(50));
    sink.write(evaluation);
    sink.write({ ...train(100), expertLoad: [] });
    sink.close();
    expect(stream.text).toContain('█');
    expect(stream.text).toContain('step 100/100 | loss 1.3863 | bpc 2.000 | 1000 tokens/s | 0:00 left');
    expect(stream.text).toContain('step 20 | valid loss 2.0794');
  });
});
