import { camelCase } from '../src/dispatch/op.js';
import { refusal } from '../src/dispatch/unsafe-operators.js';
import type { NativeBinding, OperatorSchema } from '../src/native/index.js';
import { families, handWritten, overloadPatterns } from './exclusions.js';

/** A name of the surface with the overloads that it stands for, in the order in which they are tried. */
export interface SurfaceEntry {
  readonly name: string;
  readonly overloads: readonly OperatorSchema[];
  /** Those whose first argument is the tensor itself: the forms that a method has. */
  readonly methodForms: readonly OperatorSchema[];
  readonly isInPlace: boolean;
}

/** Why an operator is left out, or undefined. */
export function exclusionReason(schema: OperatorSchema): string | undefined {
  const name = schema.name.slice('aten::'.length);
  if (!schema.callable) return 'a type without JavaScript form';
  if (schema.arguments.some((argument) => argument.isOut)) return 'writes into a tensor';
  if (Object.hasOwn(handWritten, name)) return handWritten[name];
  return (
    refusal(schema.name) ??
    families.find(([pattern]) => pattern.test(name))?.[1] ??
    overloadPatterns.find(([pattern]) => pattern.test(schema.overload))?.[1]
  );
}

/** Every public functional and in-place ATen operator, grouped by name. */
export function selectSurface(binding: NativeBinding): SurfaceEntry[] {
  const groups = new Map<string, OperatorSchema[]>();
  for (const fullName of binding.operatorNames()) {
    if (!fullName.startsWith('aten::')) continue;
    const schema = binding.findSchema(fullName)!;
    if (exclusionReason(schema) !== undefined) continue;
    const name = camelCase(schema.name.slice('aten::'.length));
    groups.set(name, [...(groups.get(name) ?? []), schema]);
  }
  return [...groups]
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([name, forms]) => {
      const overloads = forms.sort((a, b) => rank(a) - rank(b) || (a.overload < b.overload ? -1 : 1));
      const methodForms = overloads.filter(
        ({ arguments: [first] }) => first?.name === 'self' && first.type === 'Tensor',
      );
      return { name, overloads, methodForms, isInPlace: name.endsWith('_') };
    });
}

/** Forms with fewer required arguments come first, and tensors before numbers. */
function rank(schema: OperatorSchema): number {
  const required = schema.arguments.filter((argument) => !argument.hasDefault);
  const numbers = required.filter((argument) => /^(Scalar|int|float|SymInt)/.test(argument.type));
  return required.length * 10 + numbers.length;
}
