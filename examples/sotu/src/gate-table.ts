import { worstImbalance } from '@fmoe/models';
import { lateExpertLoad, meanThroughput, type Run } from '@fmoe/models/report';
import { finalLoss } from './table.js';

/** What a run came to. */
export interface RunFigures {
  seed: number;
  threads: number;
  steps: number;
  validBitsPerCharacter: number | undefined;
  testBitsPerCharacter: number | undefined;
  /** Largest over mean load of the most uneven layer, over the last quarter of the steps. */
  imbalance: number | undefined;
  /** Mean share of slots that were dropped, over layers and the last quarter of the steps. */
  dropped: number;
  /** In training steps, without evaluation. */
  tokensPerSecond: number;
}

type Figure = Exclude<keyof RunFigures, 'seed' | 'threads' | 'steps'>;

/** A gate: the mean of its runs, and how far apart they are. */
export interface Row {
  gate: string;
  mean: Partial<Record<Figure, number>>;
  /** Largest minus smallest. */
  range: Partial<Record<Figure, number>>;
  runs: readonly RunFigures[];
}

/** The figures of one run. */
export function summarizeRun(run: Run): RunFigures {
  const { seed, threads } = run.start.config as { seed: number; threads: number };
  const late = run.train.filter(({ step }) => step > 0.75 * run.start.steps);
  const dropped = late.flatMap(({ droppedShare }) => droppedShare ?? []).map((share) => share ?? 0);
  return {
    seed,
    threads,
    steps: run.train.at(-1)!.step,
    validBitsPerCharacter: finalLoss(run, 'valid'),
    testBitsPerCharacter: finalLoss(run, 'test'),
    imbalance: worstImbalance(lateExpertLoad(run)),
    dropped: dropped.reduce((sum, share) => sum + share, 0) / Math.max(1, dropped.length),
    tokensPerSecond: meanThroughput(run),
  };
}

/** Mean and range of a gate's runs; a figure that a run lacks is left out. */
export function summarize(gate: string, runs: readonly RunFigures[]): Row {
  const row: Row = { gate, mean: {}, range: {}, runs };
  for (const figure of [
    'validBitsPerCharacter',
    'testBitsPerCharacter',
    'imbalance',
    'dropped',
    'tokensPerSecond',
  ] as const) {
    const values = runs.map((run) => run[figure]).filter((value) => value !== undefined);
    if (values.length < runs.length) continue;
    row.mean[figure] = values.reduce((sum, value) => sum + value, 0) / values.length;
    row.range[figure] = Math.max(...values) - Math.min(...values);
  }
  return row;
}

/** The rows as a Markdown table; after ± half of the range. */
export function gateTable(rows: readonly Row[]): string {
  const lines = rows.map(({ gate, mean, range, runs }) => {
    const shown = (figure: Figure, digits: number, factor = 1): string => {
      const value = mean[figure];
      if (value === undefined) return '-';
      const half = runs.length > 1 ? ` ± ${((factor * range[figure]!) / 2).toFixed(digits)}` : '';
      return `${(factor * value).toFixed(digits)}${half}`;
    };
    return [
      gate,
      `${runs.length}`,
      shown('validBitsPerCharacter', 3),
      shown('testBitsPerCharacter', 3),
      shown('imbalance', 2),
      shown('dropped', 1, 100),
      shown('tokensPerSecond', 0),
    ];
  });
  const head = ['gate', 'runs', 'valid bpc', 'test bpc', 'imbalance', 'dropped, %', 'tokens/s'];
  return [head, head.map(() => '---'), ...lines].map((cells) => `| ${cells.join(' | ')} |`).join('\n');
}
