import { FmoeError } from '../errors.js';
import { native } from '../native/index.js';
import { keep, tidy } from '../scope.js';
import { Tensor } from '../tensor/tensor.js';
import { guarded, handlesOf } from '../tensor/tensor-base.js';
import { show } from './check.js';
import { type ForwardHook, type ForwardPreHook, type HookHandle, ModuleHooks } from './module-hooks.js';
import { type ModuleTarget, moveModule } from './module-move.js';
import { printModule } from './module-print.js';
import { Parameter } from './parameter.js';
import {
  collectState,
  type LoadResult,
  type LoadStateOptions,
  loadState,
  type StateDict,
  type StateDictOptions,
} from './state-dict.js';

/** How a module keeps a buffer. */
export interface BufferOptions {
  /** Whether it is in the state dict. Default true. */
  persistent: boolean;
  /** Whether it stays as it is when the module is converted to half precision. Default false. */
  keepsPrecision: boolean;
}

/**
 * A part of a neural network: parameters, buffers and further modules, with a `forward` that computes.
 *
 * Parameters and child modules are ordinary properties: whatever own property holds a {@link Parameter} or a `Module`
 * belongs to the module, in the order in which the properties were defined. The path of property names is the key in
 * the state dict. Buffers are tensors that belong to the state but are not learned; `registerBuffer` declares them.
 *
 * @example
 * class Block extends Module {
 *   readonly norm = new LayerNorm(64);
 *   readonly scale = new Parameter(torch.ones([64]));
 *   forward(x: Tensor) { return this.norm.call(x).mul(this.scale); }
 * }
 */
export class Module {
  /** Whether the module is in training mode: dropout drops, for one. `train()` and `eval()` set it. */
  training = true;

  readonly #buffers = new Map<string, BufferOptions>();
  #hooks: ModuleHooks | undefined;

  /**
   * Computes the module's output. Subclasses implement it; callers use {@link call}, which also runs the hooks.
   *
   * @throws FmoeError `ERR_NOT_IMPLEMENTED` when the subclass has none.
   */
  // biome-ignore lint/suspicious/noExplicitAny: each subclass has a signature of its own
  forward(..._args: any[]): any {
    const name = this.constructor.name;
    throw new FmoeError('ERR_NOT_IMPLEMENTED', `${name} has no forward() of its own and cannot be called.`, {
      op: name,
    });
  }

  /** Runs the pre-hooks, `forward` and the hooks. */
  call(...args: Parameters<this['forward']>): ReturnType<this['forward']> {
    if (this.#hooks === undefined) return this.forward(...args);
    return this.#hooks.run(this, args, (current) => this.forward(...current)) as ReturnType<this['forward']>;
  }

  // --- what belongs to the module ------------------------------------------------------------------------------------

  /** The properties in which parameters and children are looked for; containers with other storage override it. */
  protected ownMembers(): Iterable<readonly [string, unknown]> {
    return Object.entries(this);
  }

  /** The module's direct children, by name; a module that is held twice appears twice. */
  *namedChildren(): Generator<[string, Module]> {
    for (const [name, value] of this.ownMembers()) if (isModule(value)) yield [name, value];
  }

  /** The module's direct children. */
  children(): Module[] {
    return [...this.namedChildren()].map(([, child]) => child);
  }

  /** The parameters that this module itself holds, without those of its children. */
  *ownParameters(): Generator<[string, Parameter]> {
    for (const [name, value] of this.ownMembers()) if (value instanceof Parameter) yield [name, value];
  }

  /** The buffers that this module itself holds, in order of registration, without those that are null. */
  *ownBuffers(): Generator<[name: string, buffer: Tensor, options: BufferOptions]> {
    for (const [name, options] of this.#buffers) {
      const value = this.#property(name);
      if (value instanceof Tensor) yield [name, value, options];
    }
  }

  /** This module and all below it, by path (its own is `''`); each module once. */
  *namedModules(): Generator<[string, Module]> {
    yield* walk(this, '', new Set());
  }

  /** This module and all below it; each module once. */
  modules(): Module[] {
    return [...this.namedModules()].map(([, module]) => module);
  }

  /** All parameters by path, a module's own before those of its children; a tied parameter once, under its first path. */
  *namedParameters(): Generator<[string, Parameter]> {
    const seen = new Set<Parameter>();
    for (const [path, module] of this.namedModules()) {
      for (const [name, parameter] of module.ownParameters()) {
        if (seen.has(parameter)) continue;
        seen.add(parameter);
        yield [join(path, name), parameter];
      }
    }
  }

  /** All parameters, each once. */
  parameters(): Parameter[] {
    return [...this.namedParameters()].map(([, parameter]) => parameter);
  }

  /** All buffers by path, each once. */
  *namedBuffers(): Generator<[string, Tensor]> {
    const seen = new Set<Tensor>();
    for (const [path, module] of this.namedModules()) {
      for (const [name, buffer] of module.ownBuffers()) {
        if (seen.has(buffer)) continue;
        seen.add(buffer);
        yield [join(path, name), buffer];
      }
    }
  }

  /** All buffers, each once. */
  buffers(): Tensor[] {
    return [...this.namedBuffers()].map(([, buffer]) => buffer);
  }

  // --- buffers -------------------------------------------------------------------------------------------------------

  /**
   * Declares a tensor that belongs to the module's state without being learned, and stores it as a property. The tensor
   * leaves its scope. A null buffer keeps its place for {@link setBuffer}.
   *
   * @throws FmoeError `ERR_ARGUMENT` for a name that is empty, holds a dot or is taken, or a value that is no tensor.
   */
  registerBuffer(name: string, tensor: Tensor | null, options: Partial<BufferOptions> = {}): void {
    const taken = name in this && !this.#buffers.has(name) && this.#property(name) !== undefined;
    const problem =
      typeof name !== 'string' || name === '' || name.includes('.')
        ? 'a name must be a non-empty string without dots'
        : taken
          ? 'the module has a property of that name'
          : undefined;
    if (problem) throw this.#bufferError('registerBuffer', name, problem);
    const { persistent = true, keepsPrecision = false } = options;
    this.#buffers.set(name, { persistent, keepsPrecision });
    this.#store('registerBuffer', name, tensor);
  }

  /**
   * Puts a new tensor into a registered buffer and disposes of the old one. The new tensor leaves its scope.
   *
   * @throws FmoeError `ERR_ARGUMENT` when there is no such buffer or the value is no tensor.
   */
  setBuffer(name: string, tensor: Tensor | null): void {
    if (!this.#buffers.has(name))
      throw this.#bufferError('setBuffer', name, 'there is no buffer of that name');
    const previous = this.#property(name);
    this.#store('setBuffer', name, tensor);
    if (previous instanceof Tensor && previous !== tensor) previous.dispose();
  }

  #store(operation: string, name: string, tensor: Tensor | null): void {
    if (tensor !== null && (!(tensor instanceof Tensor) || tensor instanceof Parameter)) {
      const kind = tensor instanceof Parameter ? 'a Parameter' : show(tensor);
      throw this.#bufferError(operation, name, `a buffer must be a Tensor or null, got ${kind}`);
    }
    (this as Record<string, unknown>)[name] = tensor === null ? null : keep(tensor);
  }

  #bufferError(operation: string, name: string, problem: string): FmoeError {
    const message = `${this.constructor.name}.${operation}(${show(name)}): ${problem}.`;
    return new FmoeError('ERR_ARGUMENT', message, { op: operation, argument: 'name' });
  }

  #property(name: string): unknown {
    return (this as Record<string, unknown>)[name];
  }

  // --- mode, gradients, place ----------------------------------------------------------------------------------------

  /** Puts this module and all below it into training mode, or with `false` into evaluation mode. */
  train(mode = true): this {
    if (typeof mode !== 'boolean') {
      throw new FmoeError('ERR_ARGUMENT', `train: mode must be a boolean, got ${show(mode)}.`, {
        op: 'train',
        argument: 'mode',
      });
    }
    for (const module of this.modules()) module.training = mode;
    return this;
  }

  /** Puts this module and all below it into evaluation mode. */
  eval(): this {
    return this.train(false);
  }

  /** Sets whether all parameters require a gradient. */
  requiresGrad_(requiresGrad = true): this {
    for (const parameter of this.parameters()) parameter.requiresGrad = requiresGrad;
    return this;
  }

  /** Drops the gradients of all parameters, or with `setToNull: false` fills them with zeros. */
  zeroGrad(options: { setToNull?: boolean } = {}): void {
    const parameters = this.parameters();
    if (options.setToNull ?? true) {
      guarded('zeroGrad', () => native().clearGradients(handlesOf(parameters)));
    } else {
      tidy(() => {
        for (const parameter of parameters) parameter.grad?.detach().zero_();
      });
    }
  }

  /**
   * Moves parameters, their gradients and buffers to another device, and the floating-point ones of them to another
   * dtype. The tensors stay the same objects, so an optimizer that holds them goes on working.
   *
   * @param target `{ dtype, device }`, a dtype, or a device
   * @throws FmoeError `ERR_DTYPE` for a dtype that is not floating-point.
   */
  to(target: ModuleTarget): this {
    moveModule(this, target);
    return this;
  }

  /** Calls `fn` on all modules below this one, children before their parents, and on this one last. */
  apply(fn: (module: Module) => void): this {
    for (const child of this.children()) child.apply(fn);
    fn(this);
    return this;
  }

  /** Frees all parameters, their gradients and all buffers. The module cannot be used afterwards. */
  dispose(): void {
    this.zeroGrad();
    for (const tensor of [...this.parameters(), ...this.buffers()]) tensor.dispose();
  }

  // --- state ---------------------------------------------------------------------------------------------------------

  /**
   * Parameters and persistent buffers by path, detached and sharing memory with the module. A tied parameter appears
   * under each of its paths. The tensors belong to the caller's scope.
   */
  stateDict(options: StateDictOptions = {}): StateDict {
    return collectState(this, options);
  }

  /**
   * Copies a state dict into the parameters and buffers, in place; dtype and device stay the module's own. Nothing is
   * copied when anything is wrong.
   *
   * @param options `strict: false` lets keys be missing or unexpected
   * @returns the keys that the dict lacked and those it had too much
   * @throws FmoeError `ERR_STATE_DICT` listing the missing, unexpected and wrong-shaped keys.
   */
  loadStateDict(dict: StateDict, options: LoadStateOptions = {}): LoadResult {
    return loadState(this, dict, options);
  }

  // --- hooks ---------------------------------------------------------------------------------------------------------

  /** Registers a function that sees, and may replace, the arguments before each `call`. */
  registerForwardPreHook(hook: ForwardPreHook): HookHandle {
    this.#hooks ??= new ModuleHooks();
    return this.#hooks.addBefore(hook);
  }

  /** Registers a function that sees, and may replace, the output after each `call`. */
  registerForwardHook(hook: ForwardHook): HookHandle {
    this.#hooks ??= new ModuleHooks();
    return this.#hooks.addAfter(hook);
  }

  /** Whether hooks are registered on this module itself. A layer that computes its children's work fused asks it. */
  get hasForwardHooks(): boolean {
    return this.#hooks !== undefined && !this.#hooks.isEmpty;
  }

  // --- printing ------------------------------------------------------------------------------------------------------

  /** The settings shown in the printed tree; subclasses override it. */
  extraRepr(): string {
    return '';
  }

  /** The tree of modules as PyTorch prints it. */
  toString(): string {
    return printModule(this);
  }

  [Symbol.for('nodejs.util.inspect.custom')](): string {
    return this.toString();
  }
}

/** Outside of the class: a bundler renames a class that names itself in its body, and its name is printed. */
function isModule(value: unknown): value is Module {
  return value instanceof Module;
}

function* walk(module: Module, path: string, seen: Set<Module>): Generator<[string, Module]> {
  if (seen.has(module)) return;
  seen.add(module);
  yield [path, module];
  for (const [name, child] of module.namedChildren()) yield* walk(child, join(path, name), seen);
}

function join(path: string, name: string): string {
  return path === '' ? name : `${path}.${name}`;
}
