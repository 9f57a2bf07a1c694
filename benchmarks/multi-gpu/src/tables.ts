/** Prints a result of main.ts as tables for the docs: `npx tsx benchmarks/multi-gpu/src/tables.ts RESULT.json` */
import { readFileSync } from 'node:fs';
import type { Report } from './report.js';

function table(head: readonly string[], rows: readonly (readonly unknown[])[]): void {
  if (rows.length === 0) return;
  const line = (cells: readonly unknown[]): string => `| ${cells.map((cell) => cell ?? '–').join(' | ')} |`;
  console.log([line(head), line(head.map(() => '---')), ...rows.map(line), ''].join('\n'));
}

const report = JSON.parse(readFileSync(process.argv[2]!, 'utf8')) as Report;

table(
  [
    'shape',
    'routing',
    'W',
    'ms',
    'alone ms',
    'efficiency',
    't(1) / t(W)',
    'TFLOP/s a rank',
    'gate',
    'exchange',
    'experts',
    'sync',
    'wait',
  ],
  report.layer.map(({ split, ...row }) => [
    row.shape,
    row.routing,
    row.ranks,
    row.milliseconds,
    row.aloneMilliseconds,
    row.efficiency,
    row.efficiencyAgainstOneRank,
    row.teraflops,
    split.gate,
    split.exchange,
    split.experts,
    split.sync,
    split.wait,
  ]),
);
table(
  ['KiB a rank', 'ours µs', 'raw µs', 'raw / ours', 'ours GB/s', 'of the peak', 'rows of experts GB/s'],
  report.bandwidth.map((row) => [
    row.bytes / 1024,
    row.ourMicroseconds,
    row.rawMicroseconds,
    row.ratio,
    row.ourGigabytesPerSecond,
    row.shareOfPeak,
    row.exchangeGigabytesPerSecond,
  ]),
);
table(
  ['W', 'parameters', 'ms a step', 'tokens/s', 't(1) / t(W)', 'peak MiB'],
  report.training.map((row) => [
    row.ranks,
    row.parameters,
    row.milliseconds,
    row.tokensPerSecond,
    row.efficiencyAgainstOneRank,
    row.peakMiB,
  ]),
);
