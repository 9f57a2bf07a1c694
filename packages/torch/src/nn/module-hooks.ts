import type { Module } from './module.js';

/**
 * Runs before `forward`. What it returns replaces the arguments: an array of them, or a single one; undefined leaves
 * them as they are.
 */
export type ForwardPreHook = (module: Module, args: readonly unknown[]) => unknown;

/** Runs after `forward`. What it returns replaces the output; undefined leaves it. */
export type ForwardHook = (module: Module, args: readonly unknown[], output: unknown) => unknown;

/** Takes a hook off again. */
export interface HookHandle {
  remove(): void;
}

/** The hooks of one module, in order of registration. */
export class ModuleHooks {
  readonly #before = new Set<{ hook: ForwardPreHook }>();
  readonly #after = new Set<{ hook: ForwardHook }>();

  get isEmpty(): boolean {
    return this.#before.size === 0 && this.#after.size === 0;
  }

  addBefore(hook: ForwardPreHook): HookHandle {
    return add(this.#before, hook);
  }

  addAfter(hook: ForwardHook): HookHandle {
    return add(this.#after, hook);
  }

  run(module: Module, args: readonly unknown[], forward: (args: readonly unknown[]) => unknown): unknown {
    let current = args;
    for (const { hook } of [...this.#before]) {
      const replaced = hook(module, current);
      if (replaced !== undefined) current = Array.isArray(replaced) ? replaced : [replaced];
    }
    let output = forward(current);
    for (const { hook } of [...this.#after]) {
      const replaced = hook(module, current, output);
      if (replaced !== undefined) output = replaced;
    }
    return output;
  }
}

/** Each registration is an entry of its own, so that one function can be registered twice. */
function add<Hook>(hooks: Set<{ hook: Hook }>, hook: Hook): HookHandle {
  const entry = { hook };
  hooks.add(entry);
  return { remove: () => void hooks.delete(entry) };
}
