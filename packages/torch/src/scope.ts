import { AsyncLocalStorage } from 'node:async_hooks';
import { checkFunction, refusePromise } from './check.js';
import { FmoeError } from './errors.js';
import { native, setBeforeUse } from './native/index.js';
import { guarded, TensorBase, watchForgotten } from './tensor/tensor-base.js';

/*
 * Who owns a tensor. A tensor joins the scope that is active where it is born and dies with it. JavaScript's finalizers
 * do not run inside synchronous code, so garbage collection alone would run out of memory within one training step.
 *
 * The active scope is one number shared with the addon. Synchronous scopes (tidy, and callbacks from native code) set and
 * restore it. Scopes that must survive an `await` live in AsyncLocalStorage instead, and while any is open the number is
 * brought up to date before each native call.
 */

const root = 0;
/** Always a fresh object: `run` with the very store that is current would let changes inside leak to the caller. */
const asyncScopes = new AsyncLocalStorage<{ readonly scope: Scope | undefined }>();
let openAsyncScopes = 0;
let synchronousDepth = 0;
/** The addon's array; set before the first asynchronous scope opens. */
let activeScope = new Int32Array(1);

function followAsyncContext(): void {
  if (synchronousDepth === 0) setActive(liveIdOf(currentScope()));
}

const currentScope = (): Scope | undefined => asyncScopes.getStore()?.scope;

function setActive(scope: number): void {
  activeScope[0] = scope;
}

function liveIdOf(scope: Scope | undefined): number {
  let candidate = scope;
  while (candidate?.isClosed) candidate = candidate.parent;
  return candidate?.id ?? root;
}

/**
 * Owns the tensors born while it is open. Made by {@link scope}.
 */
export class Scope {
  /** @internal */
  readonly id: number;
  /** @internal */
  readonly parent: Scope | undefined;
  private closed = false;

  /** @internal */
  constructor() {
    const binding = native();
    activeScope = binding.activeScope as Int32Array<ArrayBuffer>;
    this.parent = currentScope();
    this.id = binding.openScope();
    openAsyncScopes++;
    setBeforeUse(followAsyncContext);
    asyncScopes.enterWith({ scope: this });
    setActive(this.id);
  }

  get isClosed(): boolean {
    return this.closed;
  }

  /**
   * Lets a tensor (or all tensors of an array or a plain object) outlive this scope: they move to the scope around it.
   *
   * @throws FmoeError `ERR_ARGUMENT` once this scope has ended.
   */
  keep<Value>(value: Value): Value {
    if (this.closed)
      throw new FmoeError('ERR_ARGUMENT', 'scope.keep(): the scope has ended', { op: 'scope.keep' });
    moveOut(value, this.id, liveIdOf(this.parent));
    return value;
  }

  /** Frees every tensor that was born here and not kept. */
  dispose(): void {
    if (this.closed) return;
    this.closed = true;
    openAsyncScopes--;
    if (openAsyncScopes === 0) setBeforeUse(undefined);
    asyncScopes.enterWith({ scope: this.parent });
    // Inside of tidy() its own scope stays the active one.
    if (synchronousDepth === 0) setActive(liveIdOf(this.parent));
    native().closeScope(this.id);
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}

/**
 * Opens a scope for the rest of the block: `using scope = torch.scope()` frees at the block's end everything born in it
 * that was not kept. In an async function it stays the active scope across `await`; for async functions that run at the
 * same time, use {@link scoped}, which keeps their scopes apart.
 */
export function scope(): Scope {
  if (synchronousDepth > 0) {
    throw new FmoeError(
      'ERR_ARGUMENT',
      'scope() inside tidy() or a native callback: use a nested tidy() there',
      {
        op: 'scope',
      },
    );
  }
  return new Scope();
}

/**
 * Runs an async function in a scope of its own and frees what was born in it, except what it returns: a tensor, or arrays
 * and plain objects of tensors.
 */
export async function scoped<Result>(body: (scope: Scope) => Promise<Result>): Promise<Result> {
  checkFunction('scoped', 'body', body);
  if (synchronousDepth > 0) {
    throw new FmoeError(
      'ERR_ARGUMENT',
      'scoped() inside tidy() or a native callback, which end before it does',
      {
        op: 'scoped',
      },
    );
  }
  return asyncScopes.run({ scope: currentScope() }, async () => {
    using own = new Scope();
    return own.keep(await body(own));
  });
}

/**
 * Runs `body` and frees every tensor born in it, except what it returns: a tensor, or arrays and plain objects of
 * tensors.
 *
 * @throws FmoeError `ERR_ARGUMENT` when `body` returns a promise: use {@link scoped}.
 */
export function tidy<Result>(body: () => Result): Result {
  checkFunction('tidy', 'body', body);
  const binding = native();
  const { activeScope } = binding;
  const outer = activeScope[0]!;
  const id = binding.openScope();
  activeScope[0] = id;
  synchronousDepth++;
  try {
    const result = body();
    refusePromise('tidy', result, 'and its tensors would die before it ends. Use scoped(async () => …)');
    moveOut(result, id, stillOpen(outer));
    return result;
  } finally {
    activeScope[0] = stillOpen(outer);
    synchronousDepth--;
    binding.closeScope(id);
  }
}

/** The scope around the outermost tidy may be an asynchronous one, and end inside of it. */
const stillOpen = (outer: number): number =>
  outer === root || synchronousDepth > 1 ? outer : liveIdOf(currentScope());

/** @internal For callbacks from native code, which opens and closes a scope around them. */
export function insideNativeScope<Result>(body: () => Result): Result {
  synchronousDepth++;
  try {
    return body();
  } finally {
    synchronousDepth--;
  }
}

/**
 * Takes a tensor (or all tensors of an array or a plain object) out of every scope. It lives until it is disposed or
 * garbage collected. Parameters, buffers and optimizer state do this by themselves.
 */
export function keep<Value>(value: Value): Value {
  eachTensor(value, (tensor) => {
    guarded('keep', () => {
      const binding = native();
      if (binding.scopeOf(tensor.handle) === root) return;
      binding.moveToScope(tensor.handle, root);
      watchForgotten(tensor);
    });
  });
  return value;
}

function moveOut(value: unknown, from: number, to: number): void {
  const binding = native();
  eachTensor(value, (tensor) => {
    if (!binding.isLive(tensor.handle) || binding.scopeOf(tensor.handle) !== from) return;
    binding.moveToScope(tensor.handle, to);
    if (to === root) watchForgotten(tensor);
  });
}

/** Visits the tensors in arrays, maps, sets and plain objects, however deep; objects of classes own theirs. */
function eachTensor(value: unknown, visit: (tensor: TensorBase) => void): void {
  if (value instanceof TensorBase) {
    visit(value);
    return;
  }
  // A set grows while it is walked, and holds what contains itself once.
  const containers = new Set([value]);
  for (const container of containers) {
    for (const item of itemsOf(container)) {
      if (item instanceof TensorBase) visit(item);
      else containers.add(item);
    }
  }
}

function itemsOf(container: unknown): Iterable<unknown> {
  if (typeof container !== 'object' || container === null) return [];
  if (Array.isArray(container) || container instanceof Set) return container;
  if (container instanceof Map) return container.values();
  const prototype: unknown = Object.getPrototypeOf(container);
  return prototype === Object.prototype || prototype === null ? Object.values(container) : [];
}

/** Counts of tensors that JavaScript holds. */
export interface TensorStatistics {
  /** Handles alive now, whoever owns them. */
  readonly tensors: number;
  /** Handles ever made. */
  readonly created: number;
  /** Scopes open now. */
  readonly scopes: number;
}

/** Live counts: a training loop whose `tensors` grows from step to step leaks. */
export function memory(): TensorStatistics {
  const [tensors, created, scopes] = native().tableStatistics();
  return { tensors, created, scopes };
}
