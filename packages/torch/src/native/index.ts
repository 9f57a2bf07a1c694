import type { NativeBinding } from './binding.js';
import { loadBinding } from './load.js';

export type {
  ArgumentSchema,
  Handle,
  HandleList,
  NativeBinding,
  NativeCallback,
  NativeEvent,
  NativeStream,
  OperatorSchema,
  ReturnSchema,
} from './binding.js';

let binding: NativeBinding | undefined;

/** Runs before native code when scopes of asynchronous functions are open; see scope.ts. */
let beforeUse: (() => void) | undefined;

export function setBeforeUse(hook: (() => void) | undefined): void {
  beforeUse = hook;
}

/**
 * The addon. It loads on first use, so that importing this package works on a machine without libtorch and the error
 * comes where something native is asked for.
 */
export function native(): NativeBinding {
  binding ??= loadBinding();
  beforeUse?.();
  return binding;
}
