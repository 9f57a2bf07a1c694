import type { Module } from './module.js';

/** The tree of a module and its children, in the form that PyTorch prints. */
export function printModule(module: Module): string {
  const extra = module.extraRepr();
  const extraLines = extra === '' ? [] : extra.split('\n');
  const childLines = [...module.namedChildren()].map(
    ([name, child]) => `(${name}): ${indentAfterFirst(child.toString())}`,
  );
  return frame(module.constructor.name, extraLines, childLines);
}

/** As {@link printModule}, with runs of equal children folded into one line: `(0-5): 6 x Block(...)`. */
export function printFolded(module: Module): string {
  const runs: { first: string; last: string; count: number; text: string }[] = [];
  for (const [name, child] of module.namedChildren()) {
    const text = child.toString();
    const run = runs.at(-1);
    if (run?.text === text) {
      run.last = name;
      run.count++;
    } else {
      runs.push({ first: name, last: name, count: 1, text });
    }
  }
  const lines = runs.map(({ first, last, count, text }) =>
    indentAfterFirst(count === 1 ? `(${first}): ${text}` : `(${first}-${last}): ${count} x ${text}`),
  );
  return frame(module.constructor.name, [], lines);
}

/** A floating-point setting as Python prints it: `1.0`, `0.1`, `1e-05`. */
export function pythonFloat(value: number): string {
  if (Number.isNaN(value)) return 'nan';
  if (!Number.isFinite(value)) return value > 0 ? 'inf' : '-inf';
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-4 || size >= 1e16)) {
    const [digits, exponent] = value.toExponential().split('e') as [string, string];
    return `${digits}e${exponent[0]}${exponent.slice(1).padStart(2, '0')}`;
  }
  return Number.isInteger(value) ? `${value}.0` : String(value);
}

/** A boolean setting as Python prints it. */
export function pythonBool(value: boolean): string {
  return value ? 'True' : 'False';
}

/** A shape as Python prints it: `(4,)`, `(4, 2)`. */
export function pythonTuple(values: readonly number[]): string {
  return values.length === 1 ? `(${values[0]},)` : `(${values.join(', ')})`;
}

function frame(name: string, extraLines: string[], childLines: string[]): string {
  const [onlyLine] = extraLines;
  if (extraLines.length === 1 && childLines.length === 0) return `${name}(${onlyLine})`;
  const lines = [...extraLines, ...childLines];
  return lines.length === 0 ? `${name}()` : `${name}(\n  ${lines.join('\n  ')}\n)`;
}

function indentAfterFirst(text: string): string {
  return text.replaceAll('\n', '\n  ');
}
