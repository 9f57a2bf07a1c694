import { FmoeError } from '../errors.js';
import { show } from './check.js';
import { Module } from './module.js';

/** Modules by name, in the order in which they were added. It has no `forward` of its own. */
export class ModuleDict<Item extends Module = Module> extends Module {
  // A map and not properties: those named by numbers would be ordered by size, and any name is allowed here.
  readonly #items = new Map<string, Item>();

  /** @throws FmoeError `ERR_ARGUMENT` when an item is no module or a name is empty or holds a dot. */
  constructor(modules: Record<string, Item> | Iterable<readonly [string, Item]> = {}) {
    super();
    const entries = Symbol.iterator in modules ? modules : Object.entries(modules);
    for (const [name, module] of entries as Iterable<[string, Item]>) this.set(name, module);
  }

  protected override *ownMembers(): Iterable<readonly [string, unknown]> {
    yield* Object.entries(this);
    yield* this.#items;
  }

  get size(): number {
    return this.#items.size;
  }

  has(name: string): boolean {
    return this.#items.has(name);
  }

  /** @throws FmoeError `ERR_INDEX` when there is no module of that name. */
  get(name: string): Item {
    const item = this.#items.get(name);
    if (item) return item;
    const names = [...this.#items.keys()].map(show).join(', ') || 'none';
    throw new FmoeError('ERR_INDEX', `ModuleDict: no module named ${show(name)}; there are ${names}.`, {
      op: 'ModuleDict',
      argument: 'name',
    });
  }

  /** Adds a module or replaces the one of that name, in its place. */
  set(name: string, module: Item): this {
    if (typeof name !== 'string' || name === '' || name.includes('.')) {
      throw new FmoeError(
        'ERR_ARGUMENT',
        `ModuleDict: a name must be a non-empty string without dots, got ${show(name)}.`,
        { op: 'ModuleDict', argument: 'name' },
      );
    }
    if (!(module instanceof Module)) {
      throw new FmoeError('ERR_ARGUMENT', `ModuleDict: an item must be a Module, got ${show(module)}.`, {
        op: 'ModuleDict',
        argument: name,
      });
    }
    this.#items.set(name, module);
    return this;
  }

  delete(name: string): boolean {
    return this.#items.delete(name);
  }

  keys(): IterableIterator<string> {
    return this.#items.keys();
  }

  values(): IterableIterator<Item> {
    return this.#items.values();
  }

  entries(): IterableIterator<[string, Item]> {
    return this.#items.entries();
  }

  [Symbol.iterator](): IterableIterator<[string, Item]> {
    return this.#items.entries();
  }
}
