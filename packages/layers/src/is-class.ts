/**
 * Whether something is a class, which can only be constructed, and not a function to call. What a class's objects are is not
 * known from this.
 */
export function isClass(source: unknown): source is new (...args: never[]) => unknown {
  // The prototype of a class cannot be replaced; that of a function can, if it has one.
  return (
    typeof source === 'function' && Object.getOwnPropertyDescriptor(source, 'prototype')?.writable === false
  );
}
