import type { Module } from './module.js';
import { printFolded } from './module-print.js';
import { ModuleSequence } from './module-sequence.js';

/**
 * A list of modules whose parameters belong to the module that holds the list; a plain array would hide them. Its
 * items are called one by one: the list itself has no `forward`.
 */
export class ModuleList<Item extends Module = Module> extends ModuleSequence<Item> {
  /** @throws FmoeError `ERR_ARGUMENT` when an item is no module. */
  constructor(modules: Iterable<Item> = []) {
    super();
    this.extend(modules);
  }

  override toString(): string {
    return printFolded(this);
  }
}
