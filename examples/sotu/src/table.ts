import { quotedLoss, type SplitName, worstImbalance } from '@fmoe/models';
import { lateExpertLoad, meanThroughput, type Run } from '@fmoe/models/report';

/** The closing table of the runs. */
export function resultTable(runs: readonly Run[]): string {
  const head = ['run', 'parameters', 'steps', 'valid bpc', 'test bpc', 'seconds', 'tokens/s', 'imbalance'];
  const rows = runs.map((run) => {
    const last = run.train.at(-1)!;
    const uneven = worstImbalance(lateExpertLoad(run));
    return [
      run.name,
      run.start.parameters.toLocaleString('en'),
      `${last.step}`,
      finalLoss(run, 'valid')?.toFixed(3) ?? '-',
      finalLoss(run, 'test')?.toFixed(3) ?? '-',
      last.seconds.toFixed(1),
      meanThroughput(run).toFixed(0),
      uneven?.toFixed(2) ?? '-',
    ];
  });
  const widths = head.map((title, column) =>
    Math.max(title.length, ...rows.map((row) => row[column]!.length)),
  );
  const line = (cells: readonly string[]): string =>
    cells
      .map((cell, column) => (column === 0 ? cell.padEnd(widths[0]!) : cell.padStart(widths[column]!)))
      .join('  ');
  return [line(head), line(widths.map((width) => '-'.repeat(width))), ...rows.map(line)].join('\n');
}

/** Bits per character of the final model. */
export function finalLoss(run: Run, split: SplitName): number | undefined {
  const record = run.evaluations.filter((entry) => entry.split === split).at(-1);
  return record && quotedLoss(record.loss, run.start.unit).value;
}
