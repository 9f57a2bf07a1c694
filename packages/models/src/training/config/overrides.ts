import { FmoeError } from '@fmoe/torch';

/**
 * A copy of a configuration with some values replaced, as `--set training.steps=200` does.
 *
 * @param config a plain object
 * @param assignments `path=value`, the path with dots, the value as JSON or else as a string
 * @throws FmoeError ERR_CONFIG when an assignment has no `=` or goes through something that is not an object, and for
 *   a configuration that is no object of plain values
 */
export function applyOverrides(config: unknown, assignments: readonly string[]): unknown {
  const copy = copyOf(config);
  for (const assignment of assignments) {
    const at = assignment.indexOf('=');
    if (at < 1) {
      throw new FmoeError(
        'ERR_CONFIG',
        `'${assignment}' is not of the form key=value, e.g. training.steps=200.`,
      );
    }
    const path = assignment.slice(0, at).split('.');
    const last = path.pop()!;
    let target = copy as Record<string, unknown>;
    for (const [depth, key] of path.entries()) {
      if (!Object.hasOwn(target, key)) target[key] = {};
      const inner = target[key];
      if (typeof inner !== 'object' || inner === null || Array.isArray(inner)) {
        const where = path.slice(0, depth + 1).join('.');
        throw new FmoeError('ERR_CONFIG', `'${assignment}': '${where}' is a value and has no keys.`);
      }
      target = inner as Record<string, unknown>;
    }
    target[last] = parseValue(assignment.slice(at + 1));
  }
  return copy;
}

function copyOf(config: unknown): unknown {
  if (typeof config !== 'object' || config === null) {
    throw new FmoeError('ERR_CONFIG', `A configuration must be an object, got ${JSON.stringify(config)}.`);
  }
  try {
    return structuredClone(config);
  } catch (cause) {
    throw new FmoeError('ERR_CONFIG', `A configuration must be plain values: ${(cause as Error).message}`, {
      cause,
    });
  }
}

function parseValue(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}
