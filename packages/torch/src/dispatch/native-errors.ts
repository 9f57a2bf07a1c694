import type { FmoeErrorCode } from '../errors.js';

/** What native/errors.cpp puts before a code: errors of a user's own callbacks have none, and pass unchanged. */
const mark = 'native:';

/** A failure that native code reported. */
export interface NativeFailure {
  code: FmoeErrorCode;
  message: string;
}

/** What native code threw, or undefined for an error that came from JavaScript. */
export function readNativeError(error: unknown): NativeFailure | undefined {
  if (!(error instanceof Error)) return undefined;
  const { code } = error as { code?: unknown };
  if (typeof code !== 'string' || !code.startsWith(mark)) return undefined;
  const message = shorten(error.message);
  return { code: classify(code.slice(mark.length) as FmoeErrorCode, message), message };
}

/** libtorch reports most failures as one class; its messages tell them apart. The first match wins. */
const classes: readonly (readonly [RegExp, FmoeErrorCode])[] = [
  [/INTERNAL ASSERT FAILED|please report a bug/, 'ERR_RUNTIME'],
  [/out of memory|can't allocate memory|you tried to allocate|Cannot allocate memory/i, 'ERR_OUT_OF_MEMORY'],
  [
    /on the same device|not linked with support for|unknown device type|device type at start|nvalid device|device ordinal|NVIDIA driver|No CUDA GPUs|CUDA driver|without ATen_cuda|not an accelerator|expected .* on (cpu|cuda)|to be on .* device|is on (cpu|cuda)|on device|different devices|DeviceType/i,
    'ERR_DEVICE',
  ],
  // Failures of the machine, or of the numbers themselves.
  [/CUDA error|cuBLAS|cuDNN|CUBLAS|CUDNN|NCCL|MKL|C\+\+|singular|positive-definite|converge/, 'ERR_RUNTIME'],
  [
    /not implemented for '|\bdtypes?\b|bool tensors?|Integral inputs|type LongTensor|BoolTensor|only floating point|did not match [A-Z][a-z]|Double tensors but got/,
    'ERR_DTYPE',
  ],
  [/multi-target|\dD or \dD/, 'ERR_SHAPE'],
  [
    /not (yet )?implemented|isn't implemented|no kernel|Could not run '|not (currently |yet )?supported|(does not|doesn't) support|unsupported for|meta tensor/i,
    'ERR_NOT_IMPLEMENTED',
  ],
  [
    /requires?[_ ]?grad|second time|in-?place operation|leaf|grad can be implicitly created|not have been used in the graph|autograd|derivative|differentiable|invalid gradient|gradients|marked as dirty|hook|a gradient (has|lives)/i,
    'ERR_AUTOGRAD',
  ],
  [
    /out of (range|bounds)|out-of-bounds|index .* is invalid|indices .*(out|range|bound)|should be in (range )?\[|(dim|index|offset|diagonal).*must (be )?(in|within|between)/i,
    'ERR_INDEX',
  ],
  [
    /scalar ?type|result type|same type|data ?type|type .*(unexpected|expected)|expected .* type|should be type|floating[- ]point|integral|integer (tensor|type)|input types|(bool|boolean|byte|float|int|long|complex)[a-z]* (tensor|type|input)|two bool tensors|complex|\bcast to|[a-z]Tensor|promoted/i,
    'ERR_DTYPE',
  ],
  [
    /size|shape|dimension|must match|\bdims?\b|broadcast|numel|elements|channels|matrix|matrices|vector|\d-?D\b|length|empty (list|tensor)|non-empty|batch|square|columns|rows/i,
    'ERR_SHAPE',
  ],
];

function classify(code: FmoeErrorCode, message: string): FmoeErrorCode {
  // A kernel that lacks a dtype calls itself not implemented.
  if (code === 'ERR_NOT_IMPLEMENTED' && /not implemented for '/.test(message)) return 'ERR_DTYPE';
  if (code !== 'ERR_RUNTIME' && code !== 'ERR_ARGUMENT' && code !== 'ERR_INDEX') return code;
  // The reader of arguments has said which one is wrong.
  if (message.startsWith('argument ')) return code;
  const better = classes.find(([pattern]) => pattern.test(message))?.[1];
  if (code === 'ERR_INDEX') return better === 'ERR_DEVICE' ? better : code;
  if (better !== undefined) return better;
  // What an operator refuses without saying more is a wrong argument.
  return 'ERR_ARGUMENT';
}

/** Advice that is meant for Python or for PyTorch's own developers. */
const asides: readonly RegExp[] = [
  /^\/\S+\.(cpp|h):\d+: /,
  / This could be because the operator doesn't exist for this backend[\s\S]*$/,
  /; in that case[\s\S]*$|\. If you are trying to use torch\.compile[\s\S]*$/,
  / You may have run into this message while using an operator with PT2[\s\S]*$/,
  / PyTorch splits its backend into two shared libraries[\s\S]*$/,
  /\[enforce fail at [^\]]*\] [^.]*\. (?=DefaultCPUAllocator)/,
  /\s*Error code \d+ \(Cannot allocate memory\)/,
];

/** Python's words, and what they are here. */
const translations: readonly (readonly [RegExp, string])[] = [
  [/\bretain_graph=True/g, '{ retainGraph: true }'],
  [/\ballow_unused=True/g, '{ allowUnused: true }'],
  [/\brequires_grad=False/g, 'requiresGrad false'],
  [/element (\d+)of/g, 'element $1 of'],
];

function shorten(message: string): string {
  const core = asides.reduce((text, aside) => text.replace(aside, ''), message).trim();
  return translations.reduce((text, [python, here]) => text.replace(python, here), core);
}
