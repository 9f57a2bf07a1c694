import { FmoeError } from '../errors.js';
import { checkCount, show } from './check.js';
import { Module } from './module.js';

/** Modules in a row, held as the properties `0`, `1`, ...; the common part of `ModuleList` and `Sequential`. */
export abstract class ModuleSequence<Item extends Module = Module> extends Module {
  readonly [index: number]: Item;

  /** How many modules there are. */
  get length(): number {
    return this.children().length;
  }

  [Symbol.iterator](): IterableIterator<Item> {
    return (this.children() as Item[])[Symbol.iterator]();
  }

  /**
   * The module at a position; negative counts from the end.
   *
   * @throws FmoeError `ERR_INDEX` when there is none.
   */
  at(index: number): Item {
    return this.children()[this.#position(index)] as Item;
  }

  /** Replaces the module at a position; negative counts from the end. */
  set(index: number, module: Item): this {
    const name = [...this.namedChildren()].map(([key]) => key)[this.#position(index)] as string;
    this.store(name, module);
    return this;
  }

  /** Adds a module at the end. */
  append(module: Item): this {
    this.store(String(this.length), module);
    return this;
  }

  /** Adds modules at the end. */
  extend(modules: Iterable<Item>): this {
    for (const module of [...modules]) this.append(module);
    return this;
  }

  /** Puts a module before the one at `index`. */
  insert(index: number, module: Item): this {
    const name = this.constructor.name;
    const items = [...this];
    if (checkCount(name, 'index', index) > items.length) throw this.#outOfRange(index);
    this.check(module);
    items.splice(index, 0, module);
    this.#replaceAll(items);
    return this;
  }

  /** Takes a module out, by default the last. */
  pop(index = -1): Item {
    const position = this.#position(index);
    const items = [...this];
    const [removed] = items.splice(position, 1) as [Item];
    this.#replaceAll(items);
    return removed;
  }

  /** Stores a child under a name. */
  protected store(name: string, module: Item): void {
    this.check(module);
    Object.defineProperty(this, name, {
      value: module,
      configurable: true,
      enumerable: true,
      writable: true,
    });
  }

  protected check(module: unknown): void {
    if (module instanceof Module) return;
    const name = this.constructor.name;
    throw new FmoeError('ERR_ARGUMENT', `${name}: an item must be a Module, got ${show(module)}.`, {
      op: name,
    });
  }

  #replaceAll(items: Item[]): void {
    for (const [name] of [...this.namedChildren()]) delete (this as Record<string, unknown>)[name];
    items.forEach((item, index) => {
      this.store(String(index), item);
    });
  }

  #position(index: number): number {
    const { length } = this;
    if (!Number.isSafeInteger(index) || index < -length || index >= length) throw this.#outOfRange(index);
    return index < 0 ? index + length : index;
  }

  #outOfRange(index: number): FmoeError {
    const name = this.constructor.name;
    return new FmoeError(
      'ERR_INDEX',
      `${name}: index ${show(index)} is out of range for ${this.length} modules.`,
      {
        op: name,
        argument: 'index',
      },
    );
  }
}
