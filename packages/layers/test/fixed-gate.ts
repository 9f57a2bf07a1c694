import type { GateOptions } from '../src/index.js';
import { FixedGate } from '../src/testing/fixed-gate.js';

/** A function that makes a {@link FixedGate}, for the option `gate`. */
export const fixedGate = (table: readonly (readonly number[])[]) => (options: GateOptions) =>
  new FixedGate(options, table);
