/** Shape letters: T tokens, K top-k. */
import { type Tensor, tensor } from '@fmoe/torch';
import { BaseGate, type GateOptions } from '../gates/base-gate.js';
import type { TokenRoute } from '../gates/route.js';

/**
 * A gate for tests, which decides as a table says: token t gets the experts of row t modulo the table's length, -1 for a
 * dropped slot, and as scores the sigmoids of its first K numbers.
 */
export class FixedGate extends BaseGate {
  readonly table: readonly (readonly number[])[];

  /** @param table experts `[any, K]` */
  constructor(options: GateOptions, table: readonly (readonly number[])[]) {
    super(options);
    this.table = table;
  }

  /** @param x `[T, D]` with D of at least K */
  override forward(x: Tensor): TokenRoute {
    const { table, topK } = this;
    const tokens = x.shape[0] as number;
    const rows = Array.from({ length: tokens }, (_, token) => [...(table[token % table.length] as number[])]);
    const topIdx = tensor(rows, { dtype: 'int64', device: x.device }).reshape([tokens, topK]);
    return { topIdx, topScore: x.narrow(1, 0, topK).sigmoid() };
  }
}
