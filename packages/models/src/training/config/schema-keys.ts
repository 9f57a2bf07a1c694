import { z } from 'zod';

/** The keys that an object at `path` may have; of a union, those of the members that fit `value`'s kind. */
export function keysAt(schema: z.ZodType, path: readonly string[], value: unknown): string[] {
  let schemas = [schema];
  let inner = value;
  for (const key of path) {
    schemas = objects(schemas, inner).flatMap((object) => {
      const child = object.shape[key];
      return child === undefined ? [] : [child as z.ZodType];
    });
    inner = (inner as Record<string, unknown> | null | undefined)?.[key];
  }
  return [...new Set(objects(schemas, inner).flatMap((object) => Object.keys(object.shape)))];
}

/** The object schemas under wrappers (optional, default) and unions. */
function objects(schemas: readonly z.ZodType[], value: unknown): z.ZodObject[] {
  return schemas.flatMap((schema) => {
    if (schema instanceof z.ZodObject) return [schema];
    if (schema instanceof z.ZodUnion) {
      const members = objects(schema.options as z.ZodType[], value);
      const kind = (value as Record<string, unknown> | null | undefined)?.['kind'];
      const fitting = members.filter((member) => member.shape['kind']?.safeParse(kind).success);
      return fitting.length > 0 ? fitting : members;
    }
    const wrapped = (schema.def as { innerType?: z.ZodType }).innerType;
    return wrapped === undefined ? [] : objects([wrapped], value);
  });
}
