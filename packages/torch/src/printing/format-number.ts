// Decimal formatting of doubles with ties rounded to even, as C's printf and Python's format() do it.
// JavaScript's toFixed and toExponential round ties away from zero and write exponents without padding,
// so 0.03125 would print as 0.0313 instead of PyTorch's 0.0312.

/** Digits enough to see whether a double lies exactly halfway between two short decimals. */
const EXACT_DIGITS = 60;

function nonFinite(value: number): string | undefined {
  if (Number.isNaN(value)) return 'nan';
  if (value === Number.POSITIVE_INFINITY) return 'inf';
  if (value === Number.NEGATIVE_INFINITY) return '-inf';
  return undefined;
}

const isNegative = (value: number): boolean => value < 0 || Object.is(value, -0);

/** True when `digits` beyond `kept` characters are a five followed by zeros only. */
function isTie(digits: string, kept: number): boolean {
  return /^50*$/.test(digits.slice(kept));
}

const lastDigitIsEven = (digits: string): boolean => Number(digits.at(-1)) % 2 === 0;

/**
 * Formats like C's `%.{precision}f`: ties to even, `nan`, `inf`, and a sign on negative zero.
 *
 * @param value a double, below 1e21 in magnitude or not finite
 * @param precision digits after the point, 0 to 20
 */
export function toFixedEven(value: number, precision: number): string {
  const special = nonFinite(value);
  if (special !== undefined) return special;
  const sign = isNegative(value) ? '-' : '';
  const magnitude = Math.abs(value);
  if (magnitude >= 1e21)
    return `${sign}${BigInt(magnitude)}${precision > 0 ? `.${'0'.repeat(precision)}` : ''}`;
  const exact = magnitude.toFixed(EXACT_DIGITS);
  const point = exact.indexOf('.');
  const kept = precision === 0 ? exact.slice(0, point) : exact.slice(0, point + 1 + precision);
  if (isTie(exact.slice(point + 1), precision) && lastDigitIsEven(kept)) return sign + kept;
  return sign + magnitude.toFixed(precision);
}

/**
 * Formats like C's `%.{precision}e`: ties to even and an exponent of at least two digits (`1.5000e-05`).
 *
 * @param value any double
 * @param precision digits after the point, 0 to 20
 */
export function toExponentialEven(value: number, precision: number): string {
  const special = nonFinite(value);
  if (special !== undefined) return special;
  const sign = isNegative(value) ? '-' : '';
  const magnitude = Math.abs(value);
  const [exactDigits = '', exactExponent = '+0'] = magnitude.toExponential(EXACT_DIGITS).split('e');
  const kept = precision === 0 ? exactDigits.slice(0, 1) : exactDigits.slice(0, 2 + precision);
  const roundsDown = isTie(exactDigits.slice(2), precision) && lastDigitIsEven(kept);
  const [digits = '', exponent = '+0'] = roundsDown
    ? [kept, exactExponent]
    : magnitude.toExponential(precision).split('e');
  return `${sign}${digits}e${exponent.charAt(0)}${exponent.slice(1).padStart(2, '0')}`;
}
