export { EventFile } from './event-file.js';
export { type Histogram, histogramOf, histogramOfCounts } from './histogram.js';
