import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { writeWholeFile } from '../training/atomic-write.js';
import { heatmapSize, loadHeatmap } from './load-heatmap.js';
import { loadOverTime } from './load-over-time.js';
import { lossChart } from './loss-chart.js';
import { type Picture, reportPage } from './page.js';
import { lateExpertLoad, type Run } from './read-run.js';
import { loadRenderer } from './renderer.js';

const chartSize = { width: 860, height: 440 };

/**
 * Writes `report.html` (self-contained) and its pictures as SVG and PNG: the loss over steps and over seconds,
 * and of each run that has experts a layer × expert heat map of the load, and the imbalance of each layer over time.
 *
 * @param folder where to write; made if missing
 * @returns the paths written, the page first
 * @throws FmoeError ERR_SETUP when the packages that draw are not installed
 */
export async function writeReport(runs: readonly Run[], folder: string, title?: string): Promise<string[]> {
  const renderer = await loadRenderer();
  const pictures: Picture[] = [
    { name: 'loss-over-steps', svg: renderer.svg(lossChart(runs, 'step'), chartSize) },
    { name: 'loss-over-seconds', svg: renderer.svg(lossChart(runs, 'seconds'), chartSize) },
  ];
  for (const run of runs) {
    const load = lateExpertLoad(run);
    if (load.length === 0) continue;
    const svg = renderer.svg(loadHeatmap(run.name, load), heatmapSize(load.length));
    const name = run.name.replaceAll(/[^\w.-]+/g, '-');
    pictures.push({ name: `expert-load-${name}`, svg });
    const overTime = renderer.svg(loadOverTime(run), chartSize);
    pictures.push({ name: `expert-load-over-time-${name}`, svg: overTime });
  }
  mkdirSync(folder, { recursive: true });
  const written: string[] = [];
  const write = (name: string, content: string | Uint8Array): void => {
    const path = join(folder, name);
    writeWholeFile(path, content);
    written.push(path);
  };
  write('report.html', reportPage(title ?? runs.map((run) => run.name).join(' and '), runs, pictures));
  for (const { name, svg } of pictures) {
    write(`${name}.svg`, svg);
    write(`${name}.png`, renderer.png(svg));
  }
  return written;
}
