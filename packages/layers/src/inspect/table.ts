import type { MoELayerDescription } from './describe-moe.js';

const columns: readonly [title: string, cell: (layer: MoELayerDescription) => string][] = [
  ['layer', ({ name }) => name],
  ['gate', ({ gate }) => gate],
  ['experts', ({ numExpert, expert, fused }) => `${numExpert} ${expert}${fused ? ', fused' : ''}`],
  ['top-k', ({ topK }) => String(topK)],
  ['parameters', ({ totalParameters }) => count(totalParameters)],
  ['active', ({ activeParameters }) => count(activeParameters)],
  ['FLOPs/token', ({ flopsPerToken }) => count(flopsPerToken)],
  [
    'saved/token',
    ({ savedBytesPerToken }) => (savedBytesPerToken === null ? '?' : `${savedBytesPerToken} B`),
  ],
];

/** The layers as a table of text, and below it their sums. */
export function formatTable(layers: readonly MoELayerDescription[]): string {
  if (layers.length === 0) return 'no MoE layers';
  const sum = (pick: (layer: MoELayerDescription) => number | null) =>
    layers.reduce<number | null>((total, layer) => {
      const value = pick(layer);
      return total === null || value === null ? null : total + value;
    }, 0);
  const saved = sum((layer) => layer.savedBytesPerToken);
  const totals = [
    `${layers.length} in all`,
    '',
    '',
    '',
    count(sum((layer) => layer.totalParameters)),
    count(sum((layer) => layer.activeParameters)),
    count(sum((layer) => layer.flopsPerToken)),
    saved === null ? '?' : `${saved} B`,
  ];
  const rows = [
    columns.map(([title]) => title),
    ...layers.map((layer) => columns.map(([, cell]) => cell(layer))),
    totals,
  ];
  const widths = columns.map((_, at) => Math.max(...rows.map((row) => (row[at] as string).length)));
  const isText = (at: number) => at < 3;
  return rows
    .map((row) =>
      row
        .map((cell, at) =>
          isText(at) ? cell.padEnd(widths[at] as number) : cell.padStart(widths[at] as number),
        )
        .join('  ')
        .trimEnd(),
    )
    .join('\n');
}

const units = [
  [1e12, ' T'],
  [1e9, ' G'],
  [1e6, ' M'],
  [1e3, ' k'],
] as const;

/** Four digits: 1234567 is `1.235 M`. */
function count(value: number | null): string {
  if (value === null) return '?';
  const [unit, suffix] = units.find(([least]) => value >= least) ?? [1, ''];
  return unit === 1 ? String(Math.round(value)) : `${(value / unit).toPrecision(4)}${suffix}`;
}
