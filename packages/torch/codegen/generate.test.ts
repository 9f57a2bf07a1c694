import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { camelCase } from '../src/dispatch/op.js';
import * as torch from '../src/index.js';
import { native } from '../src/native/index.js';
import { families, handWritten, overloadPatterns } from './exclusions.js';
import { renderFiles } from './render.js';
import { exclusionReason, selectSurface } from './select.js';

const binding = native();
const surface = selectSurface(binding);
const schemas = binding
  .operatorNames()
  .filter((name) => name.startsWith('aten::'))
  .map((name) => binding.findSchema(name)!);

describe('the generated surface', () => {
  const files = renderFiles(surface, binding.torchVersion);
  it.each(Object.keys(files))('%s is what the linked libtorch gives', (name) => {
    const committed = readFileSync(new URL(`../src/generated/${name}`, import.meta.url), 'utf8');
    expect(committed === files[name], 'run `npx tsx packages/torch/codegen/generate.ts`').toBe(true);
  });

  it('covers every public operator, or there is a reason why not', () => {
    const covered = new Set(surface.flatMap(({ overloads }) => overloads.map(({ id }) => id)));
    for (const schema of schemas) {
      const reason = exclusionReason(schema);
      expect(covered.has(schema.id), `${schema.name}.${schema.overload}: ${reason}`).toBe(
        reason === undefined,
      );
    }
    expect(surface.length).toBeGreaterThan(700);
  });

  it('has no exclusion without use', () => {
    const names = schemas.map(({ name }) => name.slice('aten::'.length));
    for (const name of Object.keys(handWritten)) expect(names, name).toContain(name);
    for (const [pattern] of families)
      expect(
        names.some((name) => pattern.test(name)),
        String(pattern),
      ).toBe(true);
    for (const [pattern] of overloadPatterns) {
      expect(
        schemas.some(({ overload }) => pattern.test(overload)),
        String(pattern),
      ).toBe(true);
    }
  });

  it('has by hand what it leaves out as hand-written', () => {
    const missing = Object.entries(handWritten)
      .filter(([, reason]) => /^(factory|kept by hand)/.test(reason) && !/op\(\)|without use/.test(reason))
      .map(([name]) => camelCase(name))
      .filter((name) => !(name in torch) && !(name in torch.Tensor.prototype));
    expect(missing).toEqual([]);
  });
});
