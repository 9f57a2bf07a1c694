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

/** libtorch reports most failures as one class; its messages tell them apart. First match wins. */
const classes: readonly (readonly [RegExp, FmoeErrorCode])[] = [
  [/out of memory|can't allocate memory|tried to allocate/i, 'ERR_OUT_OF_MEMORY'],
  [
    /Could not run '.*' (with arguments )?from the '|not implemented for|no kernel|not yet supported/i,
    'ERR_NOT_IMPLEMENTED',
  ],
  [
    /expected all tensors to be on the same device|expected .* device|unknown device|device type|No CUDA|CUDA driver|not linked with support for|invalid device|PyTorch is not linked|Cannot initialize|Expected one of cpu|Invalid device string/i,
    'ERR_DEVICE',
  ],
  [
    /does not require grad|second time|modified by an inplace operation|leaf Variable|grad can be implicitly created|not have been used in the graph|autograd|derivative|differentiable|gradient/i,
    'ERR_AUTOGRAD',
  ],
  [
    /out of range|index .* out of bounds|Dimension out of range|dimension specified as|out of bounds/i,
    'ERR_INDEX',
  ],
  [
    /dtype|scalar type|expected .* type|result type|same type|data type|floating point|ScalarType/i,
    'ERR_DTYPE',
  ],
  [/size|shape|dimension|must match|dim|broadcast|numel|elements|channels|Expected .*D/i, 'ERR_SHAPE'],
];

/** The code of an error that native code threw with only a general one. */
export function classifyNativeMessage(code: FmoeErrorCode, message: string): FmoeErrorCode {
  if (code !== 'ERR_RUNTIME' && code !== 'ERR_ARGUMENT' && code !== 'ERR_INDEX') return code;
  // A message about an argument that could not be read has been classified by the reader.
  if (message.startsWith('argument ')) return code;
  for (const [pattern, better] of classes) {
    if (pattern.test(message)) return code === 'ERR_INDEX' && better !== 'ERR_DEVICE' ? code : better;
  }
  return code;
}
