export { heatmapSize, loadHeatmap } from './load-heatmap.js';
export { lossChart } from './loss-chart.js';
export { meanThroughput, type Picture, reportPage } from './page.js';
export { lateExpertLoad, metricsFile, type Run, readRun } from './read-run.js';
export { loadRenderer, type PictureSize, type Renderer } from './renderer.js';
export { writeReport } from './write-report.js';
