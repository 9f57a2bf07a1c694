export * from './data/index.js';
export * from './training/index.js';
export * from './transformer-xl/index.js';
