import { FmoeError } from '@fmoe/torch';
import type { z } from 'zod';
import { nearest } from './nearest.js';
import { keysAt } from './schema-keys.js';

type Issue = z.core.$ZodIssue;

/**
 * The coded error for a configuration that does not fit its schema: one line, naming each key, what was expected and
 * for an unknown key the valid one that is most like it.
 */
export function configError(issues: readonly Issue[], schema: z.ZodType, value: unknown): FmoeError {
  // An unknown key often comes with a missing one; it is what the user has to see first.
  const unknownFirst = [...issues].sort((a, b) => rank(a) - rank(b));
  const parts = unknownFirst.flatMap((issue) => describe(issue, schema, value));
  return new FmoeError('ERR_CONFIG', `The configuration is not valid: ${[...new Set(parts)].join('; ')}.`);
}

const rank = (issue: Issue): number => (issue.code === 'unrecognized_keys' ? 0 : 1);

function describe(issue: Issue, schema: z.ZodType, value: unknown): string[] {
  const path = issue.path.map(String);
  if (issue.code === 'unrecognized_keys') {
    const valid = keysAt(schema, path, value);
    return issue.keys.map((key) => {
      const guess = nearest(key, valid);
      const hint = guess === undefined ? `valid keys: ${valid.join(', ')}` : `did you mean '${guess}'?`;
      return `unknown key '${[...path, key].join('.')}' (${hint})`;
    });
  }
  const key = path.length > 0 ? `'${path.join('.')}'` : 'it';
  const got = valueAt(value, issue.path);
  if (issue.code === 'invalid_type' && got === undefined)
    return [`${key} is missing (${expectation(issue)})`];
  return [`${key} is ${show(got)} (${expectation(issue)})`];
}

/** What zod says about an issue, without the words that the line above has already. */
function expectation(issue: Issue): string {
  if (issue.code === 'invalid_type') {
    const expected = issue.expected === 'int' ? 'integer' : issue.expected;
    return `expected ${/^[aeiou]/.test(expected) ? 'an' : 'a'} ${expected}`;
  }
  if (issue.code === 'invalid_value')
    return `expected ${issue.values.map((value) => show(value)).join(' or ')}`;
  if (issue.code === 'invalid_union' && 'options' in issue && Array.isArray(issue.options)) {
    return `expected ${issue.options.map((option) => show(option)).join(' or ')}`;
  }
  const text = issue.message.replace(/^(Invalid input|Invalid option|Too small|Too big): /, '');
  return text.charAt(0).toLowerCase() + text.slice(1);
}

function valueAt(value: unknown, path: readonly PropertyKey[]): unknown {
  return path.reduce<unknown>(
    (inner, key) => (inner === null || inner === undefined ? undefined : (inner as never)[key]),
    value,
  );
}

function show(value: unknown): string {
  if (typeof value === 'string') return `'${value}'`;
  if (typeof value === 'object' && value !== null) return Array.isArray(value) ? 'a list' : 'an object';
  return String(value);
}
