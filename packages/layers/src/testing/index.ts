/** What authors of gates and experts run on their own; needs vitest. */
export { type ExpertConformanceOptions, expertConformance } from './expert-conformance.js';
export { FixedGate } from './fixed-gate.js';
export { type GateConformanceOptions, gateConformance } from './gate-conformance.js';
