/** What went wrong, for programs to branch on. */
export type FmoeErrorCode =
  | 'ERR_SHAPE'
  | 'ERR_DTYPE'
  | 'ERR_DEVICE'
  | 'ERR_INDEX'
  | 'ERR_DISPOSED'
  | 'ERR_UNKNOWN_OP'
  | 'ERR_ARGUMENT'
  | 'ERR_OUT_OF_MEMORY'
  | 'ERR_NOT_IMPLEMENTED'
  | 'ERR_AUTOGRAD'
  | 'ERR_SETUP'
  | 'ERR_FILE'
  | 'ERR_CONFIG'
  | 'ERR_STATE_DICT'
  | 'ERR_COMM'
  | 'ERR_RUNTIME';

/** Where it went wrong; every field is optional. */
export interface FmoeErrorDetails {
  /** The operator, module or function, such as `aten::add.Tensor` or `Linear`. */
  op?: string;
  /** The argument's name. */
  argument?: string;
  /** Shapes of the tensors involved, in argument order. */
  shapes?: readonly (readonly number[])[];
  dtypes?: readonly string[];
  devices?: readonly string[];
  cause?: unknown;
}

const marker = Symbol.for('@fmoe/torch.FmoeError');

/**
 * The error of every failure that a user can cause. `message` says what was wrong and what to do, `code` is stable, and the
 * native message, where there is one, is the `cause`.
 */
export class FmoeError extends Error {
  readonly code: FmoeErrorCode;
  declare readonly op?: string;
  declare readonly argument?: string;
  declare readonly shapes?: readonly (readonly number[])[];
  declare readonly dtypes?: readonly string[];
  declare readonly devices?: readonly string[];

  constructor(code: FmoeErrorCode, message: string, details: FmoeErrorDetails = {}) {
    super(message, details.cause === undefined ? undefined : { cause: details.cause });
    this.name = 'FmoeError';
    this.code = code;
    if (details.op !== undefined) this.op = details.op;
    if (details.argument !== undefined) this.argument = details.argument;
    if (details.shapes !== undefined) this.shapes = details.shapes;
    if (details.dtypes !== undefined) this.dtypes = details.dtypes;
    if (details.devices !== undefined) this.devices = details.devices;
    Object.defineProperty(this, marker, { value: true });
  }

  /** True for an FmoeError of any copy of this package. */
  static isInstance(error: unknown): error is FmoeError {
    return typeof error === 'object' && error !== null && marker in error;
  }
}
