import { expertFlops } from './layer-shapes.js';
import type { LayerFigures } from './ranks/layer.js';
import { mean, median, rounded, slowest } from './statistics.js';

/** A step of the layer with W ranks. */
export interface LayerRow {
  shape: string;
  routing: string;
  ranks: number;
  /** There were fewer cores than ranks. */
  oversubscribed?: boolean;
  /** Median over the rounds of the slowest rank. */
  milliseconds: number;
  /** The same rank's experts by themselves, all ranks at once, without exchange: as fused as on one rank, and in steps as with W ranks. */
  aloneMilliseconds: number;
  aloneInStepsMilliseconds: number;
  /** alone / together, the median of the rounds' ratios. */
  efficiency: number;
  /** t(W = 1) / t(W), both from runs of their own. */
  efficiencyAgainstOneRank?: number;
  /** Products of the experts in TFLOP/s, a rank. */
  teraflops: number;
  /** Milliseconds by part, the mean of the ranks' medians. */
  split: { gate: number; exchange: number; experts: number; sync: number; wait: number; sum: number };
  parts: Record<string, number>;
  peakMiB?: number;
}

/** The figures of all shapes and routings that every rank has. */
export function layerRows(ofRanks: readonly LayerFigures[][]): LayerRow[] {
  const count = Math.min(...ofRanks.map((figures) => figures.length));
  return Array.from({ length: count }, (_, i) => layerRow(ofRanks.map((figures) => figures[i]!)));
}

function layerRow(ranks: readonly LayerFigures[]): LayerRow {
  const { shape, routing } = ranks[0]!;
  const times = (which: keyof LayerFigures['milliseconds']): number[] =>
    slowest(ranks.map(({ milliseconds }) => milliseconds[which]));
  const [together, alone] = [times('ranks'), times('alone')];
  const milliseconds = median(together);
  const parts: Record<string, number> = {};
  for (const part of Object.keys(ranks[0]!.parts[0]!)) {
    parts[part] = rounded(
      mean(ranks.map((figures) => median(figures.parts.map((round) => round[part] ?? 0)))),
    );
  }
  const total = (pattern: RegExp): number =>
    rounded(Object.entries(parts).reduce((sum, [part, time]) => sum + (pattern.test(part) ? time : 0), 0));
  const peaks = ranks.flatMap(({ peakMiB }) => peakMiB ?? []);
  return {
    shape: shape.name,
    routing,
    ranks: ranks.length,
    milliseconds: rounded(milliseconds),
    aloneMilliseconds: rounded(median(alone)),
    aloneInStepsMilliseconds: rounded(median(times('aloneInSteps'))),
    efficiency: rounded(median(together.map((time, round) => alone[round]! / time)), 3),
    teraflops: rounded(expertFlops(shape) / milliseconds / 1e9),
    split: {
      gate: total(/gate$/),
      exchange: total(/(exchange|counts)$/),
      experts: total(/experts$/),
      sync: total(/^sync$/),
      wait: total(/wait$/),
      sum: total(/./),
    },
    parts,
    ...(peaks.length > 0 && { peakMiB: Math.max(...peaks) }),
  };
}

/** Compares with one rank, where that was measured. */
export function compareWithOneRank(rows: readonly LayerRow[]): void {
  for (const row of rows) {
    const one = rows.find(
      ({ shape, routing, ranks }) => shape === row.shape && routing === row.routing && ranks === 1,
    );
    if (one) row.efficiencyAgainstOneRank = rounded(one.milliseconds / row.milliseconds, 3);
  }
}

export function formatLayerRow(row: LayerRow): string {
  const { gate, exchange, experts, sync, wait } = row.split;
  const number = (value: number): string => value.toPrecision(4).padStart(8);
  return (
    `${row.shape.padEnd(6)}${row.routing.padEnd(9)}W ${row.ranks}  ${number(row.milliseconds)} ms  alone ${number(row.aloneMilliseconds)}` +
    `  efficiency ${row.efficiency.toFixed(3)}  ${number(row.teraflops)} TFLOP/s a rank   ` +
    `gate ${number(gate)}  exchange ${number(exchange)}  experts ${number(experts)}  sync ${number(sync)}  wait ${number(wait)}`
  );
}
