export { HashGate, type HashGateOptions } from './hash-gate.js';
