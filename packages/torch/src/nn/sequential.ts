import { FmoeError } from '../errors.js';
import { show } from './check.js';
import { Module } from './module.js';
import { ModuleSequence } from './module-sequence.js';

/**
 * Feeds each module the output of the one before.
 *
 * @example
 * new Sequential(new Linear(4, 8), new ReLU(), new Linear(8, 2));
 * new Sequential({ up: new Linear(4, 8), act: new ReLU() });   // names instead of numbers
 */
export class Sequential extends ModuleSequence {
  /** @throws FmoeError `ERR_ARGUMENT` when an item is no module or a name cannot be used. */
  constructor(...modules: Module[] | [Record<string, Module>]) {
    super();
    const [first] = modules;
    if (modules.length === 1 && !(first instanceof Module) && typeof first === 'object' && first !== null) {
      for (const [name, module] of Object.entries(first)) this.#storeNamed(name, module);
    } else {
      this.extend(modules as Module[]);
    }
  }

  // biome-ignore lint/suspicious/noExplicitAny: what goes in and out depends on the modules
  override forward(input: any): any {
    let value = input;
    // Not through namedChildren(): pairs and a generator would cost as much as a small operator.
    for (const name of Object.keys(this)) {
      const module = (this as unknown as Record<string, unknown>)[name];
      if (module instanceof Module) value = module.call(value);
    }
    return value;
  }

  #storeNamed(name: string, module: Module): void {
    // Numbers would be ordered by size, whatever order they were written in.
    if (name === '' || name.includes('.') || /^\d+$/.test(name) || name in this) {
      throw new FmoeError(
        'ERR_ARGUMENT',
        `Sequential: ${show(name)} cannot name a module: it is empty, a number, taken, or holds a dot.`,
        { op: 'Sequential' },
      );
    }
    this.store(name, module);
  }
}
