import { mkdirSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { codedError, temporaryFolder } from '../../test/support/temporary-folder.js';
import type { MetricRecord, TrainRecord } from '../training/metrics/index.js';
import { loadHeatmap } from './load-heatmap.js';
import { loadOverTime } from './load-over-time.js';
import { lossChart } from './loss-chart.js';
import { meanThroughput, reportPage } from './page.js';
import { lateExpertLoad, readRun } from './read-run.js';
import { importOptional, loadRenderer } from './renderer.js';

const train = (step: number, more: Partial<TrainRecord> = {}): TrainRecord => ({
  kind: 'train',
  step,
  seconds: step * 2,
  loss: Math.LN2 * (2 + 10 / step),
  learningRate: 1e-3,
  gradientNorm: 1,
  tokensPerSecond: 500,
  expertLoad: [
    [step, 3 * step],
    [10, 10],
  ],
  ...more,
});

function folderOf(records: readonly MetricRecord[]): string {
  const folder = join(temporaryFolder(), 'run');
  mkdirSync(folder);
  writeFileSync(
    join(folder, 'metrics.jsonl'),
    records.map((record) => `${JSON.stringify(record)}\n`).join(''),
  );
  return folder;
}

const start: MetricRecord = {
  kind: 'start',
  step: 0,
  seconds: 0,
  steps: 40,
  name: 'a <run>',
  unit: 'character',
  parameters: 1000,
  device: 'cpu',
  config: { seed: 1 },
};

const records: MetricRecord[] = [
  start,
  train(10),
  train(20),
  train(30),
  { kind: 'evaluation', step: 30, seconds: 60, split: 'valid', loss: Math.LN2 * 2.5, tokens: 10 },
  train(40),
  { kind: 'evaluation', step: 40, seconds: 80, split: 'valid', loss: Math.LN2 * 2.25, tokens: 10 },
  { kind: 'evaluation', step: 40, seconds: 80, split: 'test', loss: Math.LN2 * 2.375, tokens: 10 },
  { kind: 'text', step: 40, tag: 'sample', text: 'if a < b & "c"' },
];

describe('readRun', () => {
  it('sorts what a run wrote', () => {
    const run = readRun(folderOf(records));
    expect(run.name).toBe('a <run>');
    expect(run.train.map(({ step }) => step)).toEqual([10, 20, 30, 40]);
    expect(run.evaluations.length).toBe(3);
  });

  it('refuses a run without steps', () => {
    expect(() => readRun(folderOf([start]))).toThrow(codedError('ERR_FILE', /no training step yet/));
  });

  it('adds up the load of the last steps', () => {
    const run = readRun(folderOf(records));
    expect(lateExpertLoad(run)).toEqual([
      [40, 120],
      [10, 10],
    ]);
    expect(lateExpertLoad(run, 0.5)).toEqual([
      [70, 210],
      [20, 20],
    ]);
    expect(lateExpertLoad(readRun(folderOf([start, train(10, { expertLoad: [] })])))).toEqual([]);
  });

  it('weighs throughput by time', () => {
    const uneven = [train(10, { tokensPerSecond: 100 }), train(40, { tokensPerSecond: 900 })];
    // 20 s at 100 and 60 s at 900.
    expect(meanThroughput(readRun(folderOf([start, ...uneven])))).toBeCloseTo((20 * 100 + 60 * 900) / 80, 9);
  });
});

/** The archive for GPU hosts comes without the packages that draw. */
function hasCharts(): boolean {
  try {
    return Boolean(createRequire(import.meta.url).resolve('echarts'));
  } catch {
    return false;
  }
}

describe('charts', () => {
  it('draw validation over steps and over seconds, in bits', () => {
    const run = readRun(folderOf(records));
    const series = (over: 'step' | 'seconds') =>
      (lossChart([run], over).series as { data: number[][] }[])[1]!.data;
    expect(series('step').map(([x]) => x)).toEqual([30, 40]);
    expect(series('seconds').map(([x]) => x)).toEqual([60, 80]);
    expect(series('step').map(([, y]) => y)).toEqual([expect.closeTo(2.5, 12), expect.closeTo(2.25, 12)]);
  });

  it('show the load of each expert in even shares', () => {
    const option = loadHeatmap('run', [
      [10, 30],
      [20, 20],
    ]);
    expect((option.series as { data: unknown }[])[0]!.data).toEqual([
      [0, 0, 0.5],
      [1, 0, 1.5],
      [0, 1, 1],
      [1, 1, 1],
    ]);
  });

  it('show how uneven the load was over the steps, and what was dropped', () => {
    const load = (expertLoad: number[][], droppedShare: (number | null)[]) => ({ expertLoad, droppedShare });
    const run = readRun(
      folderOf([
        start,
        train(
          10,
          load(
            [
              [10, 30],
              [20, 20],
            ],
            [0, 0.25],
          ),
        ),
        train(
          20,
          load(
            [
              [20, 20],
              [0, 40],
            ],
            [0, null],
          ),
        ),
      ]),
    );
    const series = loadOverTime(run).series as { name: string; data: number[][] }[];
    expect(series.map(({ name, data }) => [name, data])).toEqual([
      [
        'layer 0',
        [
          [10, 1.5],
          [20, 1],
        ],
      ],
      [
        'layer 1',
        [
          [10, 1],
          [20, 2],
        ],
      ],
      [
        'layer 1, dropped',
        [
          [10, 0.25],
          [20, 0],
        ],
      ],
    ]);
  });

  it('become SVG with the text in it, and PNG of the size asked for', async ({ skip }) => {
    skip(!hasCharts(), 'echarts is not installed');
    const renderer = await loadRenderer();
    const svg = renderer.svg(lossChart([readRun(folderOf(records))], 'step'), { width: 400, height: 300 });
    expect(svg).toMatch(/^<svg [^>]*width="400" height="300"/);
    expect(svg).toContain('Bits per character over steps');
    const png = Buffer.from(renderer.png(svg, 3));
    expect([png.readUInt32BE(16), png.readUInt32BE(20)]).toEqual([1200, 900]);
    // Text was drawn: without a font the picture is the same as with all letters removed.
    const mute = renderer.png(svg.replaceAll(/<text[\s\S]*?<\/text>/g, ''), 3);
    expect(Buffer.compare(png, Buffer.from(mute))).not.toBe(0);
  });

  it('say what to install when a package is missing, and let other errors through', async () => {
    const load = (name: string) =>
      importOptional(async () => createRequire(import.meta.url)(name) as unknown);
    await expect(load('no-such-package')).rejects.toEqual(
      codedError('ERR_SETUP', /npm install echarts @resvg\/resvg-js dejavu-fonts-ttf/),
    );
    const broken = join(temporaryFolder(), 'broken.cjs');
    writeFileSync(broken, 'throw new RangeError("inside")');
    await expect(load(broken)).rejects.toThrow(RangeError);
  });
});

describe('reportPage', () => {
  it('has the figures and the sample, and nothing that could break the page', () => {
    const run = readRun(folderOf(records));
    const page = reportPage('R&D', [run], [{ name: 'p', svg: '<?xml version="1.0"?>\n<svg>picture</svg>' }]);
    expect(page).toContain('<td>2.250</td><td>2.375</td><td>80</td><td>500</td><td>1.50</td>');
    expect(page).toContain('<td>a &lt;run&gt;</td>');
    expect(page).toContain('if a &lt; b &amp; &quot;c&quot;');
    expect(page).toContain('<figure><svg>picture</svg></figure>');
    expect(page).not.toContain('<?xml');
    expect(page).not.toMatch(/<(script|link|img|iframe)\b/);
  });
});
