import { FmoeError } from '../errors.js';
import { Tensor } from '../tensor/tensor.js';
import { show } from './check.js';
import { Module } from './module.js';
import { Parameter } from './parameter.js';

/** A list of parameters that belong to the module that holds the list. Plain tensors become parameters. */
export class ParameterList extends Module {
  readonly [index: number]: Parameter;

  /** @throws FmoeError `ERR_ARGUMENT` when an item is no tensor. */
  constructor(parameters: Iterable<Tensor> = []) {
    super();
    this.extend(parameters);
  }

  get length(): number {
    return this.#items().length;
  }

  [Symbol.iterator](): IterableIterator<Parameter> {
    return this.#items()[Symbol.iterator]();
  }

  /**
   * The parameter at a position; negative counts from the end.
   *
   * @throws FmoeError `ERR_INDEX` when there is none.
   */
  at(index: number): Parameter {
    const parameter = this.#items().at(index);
    if (parameter && Number.isSafeInteger(index)) return parameter;
    throw new FmoeError(
      'ERR_INDEX',
      `ParameterList: index ${show(index)} is out of range for ${this.length} parameters.`,
      { op: 'ParameterList', argument: 'index' },
    );
  }

  append(parameter: Tensor): this {
    if (!(parameter instanceof Tensor)) {
      throw new FmoeError(
        'ERR_ARGUMENT',
        `ParameterList: an item must be a Tensor, got ${show(parameter)}.`,
        {
          op: 'ParameterList',
        },
      );
    }
    const value = parameter instanceof Parameter ? parameter : new Parameter(parameter);
    Object.defineProperty(this, String(this.length), {
      value,
      configurable: true,
      enumerable: true,
      writable: true,
    });
    return this;
  }

  extend(parameters: Iterable<Tensor>): this {
    for (const parameter of [...parameters]) this.append(parameter);
    return this;
  }

  override extraRepr(): string {
    const lines = [...this.ownParameters()].map(([name, parameter]) => {
      const place = parameter.device === 'cpu' ? '' : ` (${parameter.device})`;
      const size = parameter.shape.join('x');
      return `  (${name}): Parameter containing: [torch.${parameter.dtype} of size ${size}${place}]`;
    });
    return lines.join('\n');
  }

  #items(): Parameter[] {
    return [...this.ownParameters()].map(([, parameter]) => parameter);
  }
}
