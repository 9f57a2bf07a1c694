/** How many elements of an array a message shows. */
const shown = 8;

/** A value, short, for a message. Never throws, and looks no deeper than into an array. */
export function describeValue(value: unknown): string {
  if (Array.isArray(value)) {
    const items = value
      .slice(0, shown)
      .map((item) => (Array.isArray(item) ? `an array of ${item.length}` : describeValue(item)));
    return `[${items.join(', ')}${value.length > shown ? `, … ${value.length - shown} more` : ''}]`;
  }
  if (typeof value === 'string') return value.length > 60 ? `'${value.slice(0, 60)}…'` : `'${value}'`;
  if (typeof value === 'bigint') return `${value}n`;
  if (typeof value === 'function') return `the function ${value.name === '' ? '(anonymous)' : value.name}`;
  if (typeof value !== 'object' || value === null) return String(value);
  return describeObject(value);
}

function describeObject(value: object): string {
  const tensor = value as { isDisposed?: unknown; dtype?: unknown; shape?: readonly number[] };
  if ('handle' in value && 'isDisposed' in value) {
    return tensor.isDisposed === true
      ? 'a disposed tensor'
      : `a ${String(tensor.dtype)} tensor [${tensor.shape?.join(', ')}]`;
  }
  const prototype = Object.getPrototypeOf(value) as { constructor?: { name?: string } } | null;
  const name = prototype?.constructor?.name;
  if (name === undefined || name === 'Object') return `an object { ${Object.keys(value).join(', ')} }`;
  return `an object of class ${name}`;
}
