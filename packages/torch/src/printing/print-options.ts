import { FmoeError } from '../errors.js';

/** How tensors are printed; the defaults and the meaning are those of PyTorch's `set_printoptions`. */
export interface PrintOptions {
  /** Digits after the point of floating-point values. Default 4. */
  precision: number;
  /** Tensors with more elements than this print only their edges. Default 1000. */
  threshold: number;
  /** Items shown at each end of every dimension of such a tensor. Default 3. */
  edgeItems: number;
  /** Characters a line. Default 80. */
  lineWidth: number;
  /** Scientific notation: always, never, or (null) where the range of values asks for it. Default null. */
  sciMode: boolean | null;
}

const defaults: PrintOptions = { precision: 4, threshold: 1000, edgeItems: 3, lineWidth: 80, sciMode: null };
let current: PrintOptions = { ...defaults };

/** The print options in force. */
export function getPrintOptions(): PrintOptions {
  return { ...current };
}

/**
 * Changes how tensors are printed from now on; options left out keep their value.
 *
 * @throws FmoeError ERR_ARGUMENT when a number is negative, not an integer (except `threshold`), or zero where one is needed
 */
export function setPrintOptions(options: Partial<PrintOptions>): void {
  const next = { ...current, ...options };
  const integerInRange = (name: 'precision' | 'edgeItems' | 'lineWidth', low: number, high: number) => {
    if (!Number.isInteger(next[name]) || next[name] < low || next[name] > high) {
      throw new FmoeError(
        'ERR_ARGUMENT',
        `setPrintOptions: ${name} is ${next[name]}, expected an integer from ${low} to ${high}.`,
        { op: 'setPrintOptions', argument: name },
      );
    }
  };
  integerInRange('precision', 0, 20);
  integerInRange('edgeItems', 1, 1_000_000);
  integerInRange('lineWidth', 1, 1_000_000);
  if (Number.isNaN(next.threshold) || next.threshold < 0) {
    throw new FmoeError(
      'ERR_ARGUMENT',
      `setPrintOptions: threshold is ${next.threshold}, expected a number of elements or Infinity.`,
      { op: 'setPrintOptions', argument: 'threshold' },
    );
  }
  current = next;
}

/** Puts PyTorch's print options back. */
export function resetPrintOptions(): void {
  current = { ...defaults };
}
