import { quotedLoss, worstImbalance } from '../training/metrics/index.js';
import { lateExpertLoad, type Run } from './read-run.js';

/** A picture of the report. */
export interface Picture {
  /** File name without an ending. */
  name: string;
  svg: string;
}

/** The report as one HTML file: pictures inline, nothing loaded from elsewhere. */
export function reportPage(title: string, runs: readonly Run[], pictures: readonly Picture[]): string {
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>${escapeHtml(title)}</title>
<style>${styles}</style>
</head>
<body>
<h1>${escapeHtml(title)}</h1>
${resultTable(runs)}
${pictures.map((picture) => `<figure>${withoutProlog(picture.svg)}</figure>`).join('\n')}
${runs.map(sample).join('\n')}
<h2>Configurations</h2>
${runs.map(configuration).join('\n')}
</body>
</html>
`;
}

const styles = `
body { font: 15px/1.5 system-ui, "DejaVu Sans", sans-serif; color: #262d34; max-width: 920px; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2rem; }
table { border-collapse: collapse; margin: 1rem 0; font-variant-numeric: tabular-nums; }
th, td { padding: .35rem .8rem; text-align: right; border-bottom: 1px solid #e3e7eb; }
th:first-child, td:first-child { text-align: left; }
figure { margin: 1.5rem 0; overflow-x: auto; } figure svg { max-width: 100%; height: auto; }
pre { background: #f5f7f8; padding: .9rem 1.1rem; white-space: pre-wrap; overflow-wrap: anywhere; border-radius: 6px; }
summary { cursor: pointer; }`;

function resultTable(runs: readonly Run[]): string {
  const unit = runs[0]?.start.unit ?? 'character';
  const { name } = quotedLoss(0, unit);
  const rows = runs.map((run) => {
    const last = run.train[run.train.length - 1]!;
    const uneven = worstImbalance(lateExpertLoad(run));
    const loss = (split: 'valid' | 'test'): string => {
      const record = run.evaluations.filter((entry) => entry.split === split).at(-1);
      return record === undefined ? '–' : quotedLoss(record.loss, unit).value.toFixed(3);
    };
    return [
      run.name,
      run.start.parameters.toLocaleString('en'),
      last.step.toLocaleString('en'),
      loss('valid'),
      loss('test'),
      last.seconds.toFixed(0),
      meanThroughput(run).toFixed(0),
      uneven === undefined ? '–' : uneven.toFixed(2),
    ];
  });
  const head = [
    'run',
    'parameters',
    'steps',
    `validation, ${name}`,
    `test, ${name}`,
    'seconds',
    'tokens/s',
    'imbalance',
  ];
  const cells = (tag: string, row: readonly string[]): string =>
    `<tr>${row.map((cell) => `<${tag}>${escapeHtml(cell)}</${tag}>`).join('')}</tr>`;
  return `<table>${cells('th', head)}${rows.map((row) => cells('td', row)).join('')}</table>`;
}

/** Tokens per second over the whole run: the records' own rates, weighted by the time they cover. */
export function meanThroughput(run: Run): number {
  let seconds = 0;
  let tokens = 0;
  let before = 0;
  for (const record of run.train) {
    const span = record.seconds - before;
    seconds += span;
    tokens += span * record.tokensPerSecond;
    before = record.seconds;
  }
  return seconds > 0 ? tokens / seconds : 0;
}

function sample(run: Run): string {
  const text = run.texts.filter((record) => record.tag === 'sample').at(-1);
  if (text === undefined) return '';
  return `<h2>A sample of ${escapeHtml(run.name)}</h2>\n<pre>${escapeHtml(text.text)}</pre>`;
}

function configuration(run: Run): string {
  const json = JSON.stringify(run.start.config, null, 2);
  return `<details><summary>${escapeHtml(run.name)}</summary><pre>${escapeHtml(json)}</pre></details>`;
}

/** An SVG document as an element of a page. */
function withoutProlog(svg: string): string {
  return svg.replace(/^\s*<\?xml[^>]*\?>\s*/, '');
}

function escapeHtml(text: string): string {
  return text
    .replaceAll('&', '&amp;')
    .replaceAll('<', '&lt;')
    .replaceAll('>', '&gt;')
    .replaceAll('"', '&quot;');
}
